"""The main job: stages, resume and summary."""
