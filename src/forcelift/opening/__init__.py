"""Opening what a plan names: source and org with the compiled rules, and what its limits mean for the engine."""
