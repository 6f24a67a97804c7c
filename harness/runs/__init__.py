"""The run folder: its layout, its reader (`Run`), its stages, integrity and the summary."""
