"""Scripts that made the files in `library`; radplan itself never imports them."""
