"""What a finished run says about its model's experts, computed from the run folder alone and drawn as figures."""
