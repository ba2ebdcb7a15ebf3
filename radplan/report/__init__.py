"""Reports of plans as one page for a browser, and the views that it shares with the app."""
