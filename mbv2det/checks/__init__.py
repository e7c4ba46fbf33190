"""Faults of data sets: found in one pass, shown, and corrected in a copy."""
