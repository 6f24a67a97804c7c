"""The expert table and the selection of experts: pure functions of routing counts."""
