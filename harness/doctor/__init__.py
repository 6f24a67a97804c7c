"""`harness doctor`: whether a run can go here, and how."""
