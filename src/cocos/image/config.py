# SPDX-License-Identifier: Apache-2.0
"""Settings of an image build, and what it tells while it runs."""

import enum
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_NAME = "cocos"
DEBUG_NAME = "cocos-debug"


class BuildSettings(BaseModel):
    """Everything that decides what an image holds, and where it goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path
    """Folder of the image; made when absent."""
    debug: bool = False
    """A root shell on the serial console, and SSH; measured differently."""
    refresh: bool = False
    """Fetch packages and wheels anew, although they are in the cache."""
    confidential: bool = True
    """Take firmware for SEV-SNP and TDX along, and predict what they measure."""
    cpus: int = Field(default=16, ge=1, le=255)
    """Most processors of a VM with SEV-SNP; their number shows in its launch digest."""
    epoch: int = 1_767_225_600
    """Time stamp of all files, in seconds since 1970; 2026-01-01."""


class Step(enum.StrEnum):
    """What a build does, in order; steps whose result is there already are left out."""

    WAIT = "waiting for another build"
    PACKAGES = "fetching Debian packages"
    TOOLS = "fetching build tools"
    FIRMWARE = "fetching firmware"
    WHEELS = "fetching Python wheels"
    ASSEMBLE = "putting the root file system together"
    COMPILE = "compiling Python modules"
    PACK = "packing the root file system"
    LINK = "linking the unified kernel image"
    PREDICT = "predicting measurements"


Progress = Callable[[Step, str], None]
"""Told what is done now, and of some steps, again and again, how far they are."""
