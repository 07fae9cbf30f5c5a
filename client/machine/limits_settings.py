"""The table [machine] of settings.toml: what a community may use of this machine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from nomoat.aggregation.errors import UsageError
from nomoat.client.machine.readings import DESKTOP_PROGRAMS, MachineLimits
from nomoat.client.machine.weekly_schedule import always, never, parse_week
from nomoat.lora.layout.parts import Layout

Share = Annotated[float, Field(gt=0, le=1)]
Windows = dict[str, tuple[str, ...]]

HELP = """\
When and how much of this machine training may use. A running nomoat follows within ten seconds;
cores, kbit/s, adam_8bit, base_bits and the last two from its next start on.
schedule = { all = ["22:00-07:00"], sat = ["00:00-24:00"] }  # local time; without it: always
quiet_hours = { all = ["12:00-13:00"] }  # never then
idle_after_s = 300         # train only when no key or mouse was touched for so long
on_battery = true          # also without mains power (default: no)
on_metered = true          # also on a network paid by volume (default: no)
max_temperature_c = 75     # GPU, or the processor without one: slows down below, stops above
max_power_w = 200          # GPU
max_vram_share = 0.8       # of the GPU's memory
yield_gpu = false          # go on while other programs use the GPU (default: give way)
ignored_programs = ["obs"] # programs on the GPU that need not be given way to
max_other_cpu_share = 0.5  # wait while other programs take more of the processor
cpu_share = 0.5            # of the time spent training, the rest is slept
cores = 4                  # of the processor, for training (default: 1)
upload_kbit_s = 2000       # network cap
download_kbit_s = 8000     # the same, of the community's adapter
min_free_disk_mb = 1024    # wait while less is free
adam_8bit = true           # optimiser state in a quarter of the memory; needs bitsandbytes
base_bits = 4              # frozen base in 4 or 8 bits (bitsandbytes), or in 16 on a processor
layers_over_gpus = true    # each of several GPUs holds some of the layers (default: all of them)
embedding_in_ram = true    # the base's embedding stays in main memory: less of the GPU's, slower
"""


class MachineSettings(BaseModel):
    """The table [machine] of settings.toml; `HELP` says what each key means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schedule: Windows = Field(default_factory=dict)
    quiet_hours: Windows = Field(default_factory=dict)
    idle_after_s: Annotated[float, Field(gt=0)] | None = None
    on_battery: bool = False
    on_metered: bool = False
    max_temperature_c: Annotated[float, Field(ge=30, le=120)] | None = None
    max_power_w: Annotated[float, Field(ge=10)] | None = None
    max_vram_share: Share | None = None
    yield_gpu: bool = True
    ignored_programs: tuple[str, ...] = ()
    max_other_cpu_share: Share | None = None
    cpu_share: Share = 1.0
    cores: Annotated[int, Field(ge=1, le=256)] = 1
    upload_kbit_s: Annotated[float, Field(gt=0)] | None = None
    download_kbit_s: Annotated[float, Field(gt=0)] | None = None
    min_free_disk_mb: Annotated[int, Field(ge=0)] = 1024
    adam_8bit: bool = False
    base_bits: Literal[4, 8, 16] | None = None
    layers_over_gpus: bool = False
    embedding_in_ram: bool = False

    @field_validator("schedule", "quiet_hours")
    @classmethod
    def _readable(cls, windows: Windows) -> Windows:
        try:
            parse_week(windows)
        except UsageError as problem:
            raise ValueError(str(problem)) from None
        return windows

    def limits(self) -> MachineLimits:
        """For the policy."""
        return MachineLimits(
            schedule=parse_week(self.schedule) if self.schedule else always(),
            quiet_hours=parse_week(self.quiet_hours) if self.quiet_hours else never(),
            idle_after_s=self.idle_after_s,
            on_battery=self.on_battery,
            on_metered=self.on_metered,
            max_temperature_c=self.max_temperature_c,
            max_power_w=self.max_power_w,
            max_vram_share=self.max_vram_share,
            yield_gpu=self.yield_gpu,
            ignored_programs=DESKTOP_PROGRAMS | set(self.ignored_programs),
            max_other_cpu_share=self.max_other_cpu_share,
            min_free_disk_bytes=self.min_free_disk_mb << 20,
        )

    @property
    def layout(self) -> Layout:
        """The way in which the base is held."""
        return Layout(self.layers_over_gpus, self.embedding_in_ram)

    @property
    def upload_bytes_s(self) -> float | None:
        """The network cap in bytes a second."""
        return None if self.upload_kbit_s is None else self.upload_kbit_s * 125

    @property
    def download_bytes_s(self) -> float | None:
        """The same for what comes in."""
        return None if self.download_kbit_s is None else self.download_kbit_s * 125
