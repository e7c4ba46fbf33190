"""int8: one file per package that quantises, and the search for what stays in float."""
