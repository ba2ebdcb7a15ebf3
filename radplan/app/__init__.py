"""Planning in the browser, on this machine alone: a session, its views, and the server that shows them."""
