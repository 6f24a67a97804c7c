"""Settings of generation that published checkpoints have, and the demo with any of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from harness.models.load import DEMO_FOLDER

GENERATION, CONFIG = "generation_config.json", "config.json"
HABITS: dict[str, dict[str, Any]] = {
    "begin_suppress_tokens": {"begin_suppress_tokens": list(range(3, 1000))},
    "bad_words_ids": {"bad_words_ids": [[token] for token in range(3, 1000)]},
    "cache_implementation": {"cache_implementation": "static"},
    "dola_layers": {"dola_layers": "high"},
    "do_sample": {"do_sample": True, "temperature": 5.0, "top_k": 0},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": [2, 9.0]},
    "forced_eos_token_id": {"forced_eos_token_id": 2},
    "guidance_scale": {"guidance_scale": 3.0},
    "max_length": {"max_length": 3},
    "max_new_tokens": {"max_new_tokens": 2},
    "max_time": {"max_time": 1e-6},
    "min_new_tokens": {"min_new_tokens": 24},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "num_beams": {"num_beams": 4},
    "num_return_sequences": {"num_return_sequences": 3, "do_sample": True},
    "output_attentions": {"output_attentions": True},
    "output_hidden_states": {"output_hidden_states": True},
    "output_router_logits": {"output_router_logits": True},
    "output_scores": {"output_scores": True},
    "penalty_alpha": {"penalty_alpha": 0.6, "top_k": 4},
    "prompt_lookup_num_tokens": {"prompt_lookup_num_tokens": 4},
    "repetition_penalty": {"repetition_penalty": 5.0},
    "return_dict": {"return_dict": False},
    "return_dict_in_generate": {"return_dict_in_generate": True},
    "sequence_bias": {"sequence_bias": [[[5], 50.0]]},
    "stop_strings": {"stop_strings": ["a", "e"]},
    "suppress_tokens": {"suppress_tokens": list(range(3, 1000))},
    "use_cache": {"use_cache": False},
}


def copy_with(folder: Path, file: str, source: Path = DEMO_FOLDER, **settings: Any) -> Path:
    """Copy a checkpoint and change a file; without generation_config.json, what config.json says is read."""
    shutil.copytree(source, folder)
    if file == CONFIG:
        (folder / GENERATION).unlink()
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder
