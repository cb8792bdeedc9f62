"""`cuvee fit`: how large a model's files are, what serving and training take, what fits."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cuvee.cli.merge import PIPED_WIDTH
from cuvee.cli.messages import errors_as_messages, refuse_flags
from cuvee.errors import RecipeError

if TYPE_CHECKING:
    from rich.table import Table

    from cuvee.fit.overview import Machine, Row, TrainingRow

ROW_TOKENS = 8192
CONTEXT = 32768
FIT_HELP = """Say what a model needs, and whether it fits: file sizes, memory, speed, training.

MODEL: a checkpoint folder, a config.json, a .gguf file (its header alone is read) or a hub id
(its config.json alone is fetched). Dense llama, qwen2 and qwen3; others are refused by name.

File sizes are exact; every estimate says its error."""

EXAMPLES = (
    "Examples: cuvee fit Qwen/Qwen2.5-32B --gpu 8GB --ram 64GB "
    "| cuvee fit runs/demo/06_merged --type Q8_0 --context 8192 --json "
    '| cuvee fit model.gguf --gpu "RTX 4060 Ti" --ram-bandwidth 76.8 --slots 1'
)

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Folder, config.json, .gguf file or hub id.")
]
GpuOption = Annotated[
    str, typer.Option(metavar="SIZE|NAME", help="Memory of the GPU, or its name; 0GB: none.")
]
RamOption = Annotated[
    str | None, typer.Option(metavar="SIZE", help="RAM. Default: that of this machine.")
]
ContextOption = Annotated[
    int | None,
    typer.Option(min=1, help="Tokens a slot. Default: the model's own, at most 32768."),
]
SlotsOption = Annotated[int, typer.Option(min=1, help="Requests answered at once.")]
KvOption = Annotated[str, typer.Option(metavar="TYPE", help="Type of the KV cache: f16, q8_0 ...")]
TypeOption = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="T", help="Only these: T,T or repeated."),
]
GpuBandwidthOption = Annotated[
    float | None, typer.Option(min=0.1, metavar="GB/S", help="Of the GPU. Default: by its name.")
]
RamBandwidthOption = Annotated[
    float | None, typer.Option(min=0.1, metavar="GB/S", help="Of the RAM. Default: measured here.")
]
GpusOption = Annotated[
    int | None, typer.Option(min=1, help="GPUs to train on, each as --gpu. Default: 1.")
]
RowOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Tokens of a training row. Default: 8192.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object, sizes in bytes.")]


def fit(  # noqa: PLR0913 - a command's options
    model: ModelArgument,
    *,
    gpu: GpuOption = "0GB",
    ram: RamOption = None,
    context: ContextOption = None,
    slots: SlotsOption = 4,
    kv: KvOption = "f16",
    types: TypeOption = None,
    gpu_bandwidth: GpuBandwidthOption = None,
    ram_bandwidth: RamBandwidthOption = None,
    gpus: GpusOption = None,
    row_tokens: RowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit (the help is `FIT_HELP`)."""
    with errors_as_messages():
        from cuvee.fit.files import known_metadata, safetensors_bytes, type_of
        from cuvee.fit.mixing import TYPES
        from cuvee.fit.overview import Wanted, headline, nearest, overview, possible, training
        from cuvee.fit.overview import chosen as spoken_of
        from cuvee.models.shape import shape_of

        file = config_of(model)
        shape = shape_of(file)
        on = machine(gpu, ram, gpu_bandwidth=gpu_bandwidth, ram_bandwidth=ram_bandwidth)
        context = context or min(shape.context or CONTEXT, CONTEXT)
        wanted = Wanted(context=context, slots=slots, kv=kv)
        asked = [name for given in types or [] for name in given.split(",")]
        chosen, refused = (asked, []) if asked else possible(shape, TYPES)
        rows = overview(shape, on, wanted, types=chosen, metadata=known_metadata(file))
        own = type_of(file) if file.suffix == ".gguf" else None
        row = spoken_of(rows, own=own)
        if not on.gpu:
            refuse_flags({"--gpus": gpus, "--row-tokens": row_tokens}, "only with --gpu")
        trained = (
            training(shape, gpus=gpus or 1, gpu=on.gpu, row_tokens=row_tokens or ROW_TOKENS)
            if on.gpu
            else ()
        )
        said = {
            "model": model,
            "parameters": shape.parameters,
            "safetensors_bf16": safetensors_bytes(shape).total,
            "type": own,
            "headline": headline(row, wanted),
            "nearest": nearest(shape, on, wanted, row=row, rows=rows),
            "refused": refused,
            "assumptions": assumptions(rows, on, context=context, trained_for=shape.context),
        }
        show(said, rows, trained, as_json=as_json)


def config_of(model: str) -> Path:
    """Return the local file or folder that says the sizes of a model, fetching no weights.

    Raises RecipeError where there is neither such a path nor such a repository, or no network.
    """
    if Path(model).exists():
        return Path(model)
    from cuvee.models.files import is_hub_id

    if not is_hub_id(model):
        raise RecipeError(f"{model}: no such file or folder")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model, "config.json"))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise RecipeError(
            f"{model}: no such file or folder, and its config.json could not be fetched from the "
            f"hub ({type(error).__name__}: {reason}); offline, name a folder or a config.json"
        ) from error


def machine(
    gpu: str, ram: str | None, *, gpu_bandwidth: float | None, ram_bandwidth: float | None
) -> "Machine":
    """Return the machine that the options describe; what they leave out is that of this one."""
    from cuvee.fit.overview import Machine
    from cuvee.fit.speed import (
        GPU_SHARE,
        RAM_SHARE,
        Bandwidth,
        bytes_of,
        gpu_of,
        measured_ram,
    )
    from cuvee.models.machine import ram as own_ram

    size, speed = gpu_of(gpu)
    if not size:
        refuse_flags({"--gpu-bandwidth": gpu_bandwidth}, "only with --gpu")
    if gpu_bandwidth is not None:
        speed = Bandwidth(gpu_bandwidth * 1e9, GPU_SHARE, "as given")
    given = None if ram_bandwidth is None else ram_bandwidth * 1e9
    memory = measured_ram() if given is None else Bandwidth(given, RAM_SHARE, "as given")
    return Machine(size, bytes_of(ram) if ram else own_ram(), memory, speed)


def assumptions(
    rows: "tuple[Row, ...]", on: "Machine", *, context: int, trained_for: int | None
) -> list[str]:
    """Return what the numbers rest on, each once."""
    from cuvee.fit.serving import GPU_CONTEXT, RAM_RESERVE

    said = dict.fromkeys(rows[0].memory.assumptions)
    said |= dict.fromkeys(line for row in rows if row.pace for line in row.pace.assumptions)
    said[f"file sizes: weights exact; {rows[0].file.source}"] = None
    said[f"{RAM_RESERVE / 1e9:.0f} GB of RAM left to the system: assumed"] = None
    if on.gpu:
        said[f"{GPU_CONTEXT / 1e9:.1f} GB of the GPU for its context: assumed"] = None
        if on.gpu_bandwidth is None:
            said["no speed with a GPU of unknown bandwidth: name it, or give --gpu-bandwidth"] = (
                None
            )
    if trained_for is not None and context > trained_for:
        said[f"the model was made for {trained_for:,} tokens, fewer than --context"] = None
    return list(said)


def show(
    said: dict[str, object],
    rows: "tuple[Row, ...]",
    trained: "tuple[TrainingRow, ...]",
    *,
    as_json: bool,
) -> None:
    """Print the findings: tables and sentences, or one JSON object."""
    import dataclasses
    import sys

    if as_json:
        found = {
            **said,
            "types": [dataclasses.asdict(row) for row in rows],
            "training": [dataclasses.asdict(row) for row in trained],
        }
        typer.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
    console.print(str(said["headline"]), style="bold", markup=False)
    console.print(serving_table(rows, own=said["type"]))
    for key in ("nearest", "refused"):
        for line in said[key]:  # type: ignore[attr-defined]  # both are sequences of lines
            console.print(f"{key}: {line}", markup=False)
    if trained:
        console.print(training_table(trained))
    for line in said["assumptions"]:  # type: ignore[attr-defined]
        console.print(f"- {line}", style="dim", markup=False)


def serving_table(rows: "tuple[Row, ...]", *, own: object) -> "Table":
    """Return the table of the types; `own` is that of the file that was asked about, or None."""
    from rich.table import Table

    table = Table(title="Serving (GB of 10^9 bytes)")
    on_gpu = any(row.placed.gpu_layers for row in rows)
    paced = any(row.pace for row in rows)
    places = ("GPU layers", "on GPU", "in RAM") if on_gpu else ()
    table.add_column("type", no_wrap=True)
    for column in ("file", "KV", "working", "total", *places, "fits", "largest context"):
        table.add_column(column, justify="right", no_wrap=column != "largest context")
    if paced:
        table.add_column("tokens/s", justify="right", no_wrap=True)
    for row in rows:
        mark = "*" if row.file.fallbacks else ""
        name = f"{row.quantization}{mark}{' (this file)' if row.quantization == own else ''}"
        sizes = (row.file.total, row.memory.kv, row.memory.working, row.memory.total)
        cells = [name, *(f"{size / 1e9:.2f}" for size in sizes)]
        if on_gpu:
            gpu, ram = row.placed.gpu, row.placed.ram
            cells += [str(row.placed.gpu_layers), f"{gpu / 1e9:.2f}", f"{ram / 1e9:.2f}"]
        cells.append("yes" if row.fits else f"no: {row.short / 1e9:.1f} short")
        cells.append(f"{row.largest_context:,}")
        if paced:
            cells.append(_pace(row))
        table.add_row(*cells)
    if fallen := max(row.file.fallbacks for row in rows):
        matrices = "matrix has" if fallen == 1 else "matrices have"
        table.caption = f"* up to {fallen} {matrices} rows that need another type"
    return table


def _pace(row: "Row") -> str:
    pace = row.pace
    return f"{pace.tokens:.2g} ({pace.low:.2g}-{pace.high:.2g})" if pace else ""


def training_table(rows: "tuple[TrainingRow, ...]") -> "Table":
    """Return the table of the ways to train."""
    from rich.table import Table

    table = Table(title="Training, on the fullest GPU (GB; by formula, see docs/train.md)")
    for column in ("way", "strategy", "weights", "gradients", "optimizer", "activations"):
        table.add_column(column, justify="left" if column in ("way", "strategy") else "right")
    table.add_column("total", justify="right")
    table.add_column("fits", justify="right")
    for row in rows:
        sizes = (row.weights, row.gradients, row.optimizer, row.activations, row.total)
        table.add_row(
            row.way, row.strategy, *(f"{size / 1e9:.1f}" for size in sizes),
            "yes" if row.fits else "no",
        )  # fmt: skip
    return table
