"""What a GPU makes of it, `make bench-gpu`: parts that each write their results at once, and the page made of them."""
