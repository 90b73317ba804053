"""Phase `validate`: show that the org holds what the plan makes of the source, on five levels."""
