"""Models as files for other engines and servers."""
