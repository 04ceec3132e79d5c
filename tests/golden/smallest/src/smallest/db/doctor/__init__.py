"""`make doctor`, and the check of the connection budget at start."""
