"""How right a map is: truths, confusion matrices and what follows from them."""
