"""``edpct doctor``."""

from __future__ import annotations

import typer


def doctor_command(
    require: list[str] = typer.Option(
        [], "--require", help="Exit with 2 unless this runtime opens; may be given several times."
    ),
) -> None:
    """Show what is installed, which runtimes open, the GPU and its driver, and what to install for the rest."""
    from edpct.bench.sensors.monitor import describe
    from edpct.cli.screen import show_table
    from edpct.errors import EngineError
    from edpct.runtimes.inventory import take_inventory
    from edpct.runtimes.table import RUNTIMES

    for name in require:
        if name not in RUNTIMES:
            raise EngineError(f"There is no runtime '{name}'.", f"Choose from: {', '.join(RUNTIMES)}.")
    found = take_inventory()
    memory = f"{found.memory_bytes / 2**30:.0f} GiB" if found.memory_bytes else "memory unknown"
    typer.echo(f"edpct {found.edpct}, Python {found.python}, {found.platform}")
    typer.echo(f"CPU: {found.cpu}, {found.cores} cores, {memory}")
    if found.gpu.available:
        for gpu in found.gpu.devices:
            memory = f"{gpu.memory_bytes / 2**30:.0f} GiB"
            typer.echo(
                f"GPU: {gpu.name}, compute capability {gpu.compute_capability}, {memory}, driver {found.gpu.driver}"
            )
    else:
        typer.echo(f"GPU: none ({found.gpu.reason.rstrip('.')})")
    typer.echo(f"Sensors: {'; '.join(describe())}")
    runtimes = [[r.runtime.title, "yes" if r.ok else "no", r.reason, r.next_step] for r in found.runtimes]
    show_table(["runtime", "opens", "seen", "next step"], runtimes, numbers=False)
    packages = [[p.name, p.version or "–", f"edpct[{p.extra}]" if p.extra else "edpct"] for p in found.packages]
    show_table(["package", "version", "comes with"], packages, numbers=False)
    for state in found.runtimes:
        if state.runtime.name in require and not state.ok:
            raise EngineError(f"{state.runtime.title} is required and does not open. {state.reason}", state.next_step)
