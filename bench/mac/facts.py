"""Facts about the system that results depend on. No serial number, host name or user name."""

import datetime
import os
import platform
import re
import sys
from pathlib import Path

from processes import first_lines

# Variables that change a build or a result.
VARIABLES = re.compile(r"MLX_\w+|OPENBLAS_NUM_THREADS|FEATURES|RUSTUP_TOOLCHAIN|MAC_\w+")


def collect(root):
    """The facts by name; a fact that the system does not state is absent."""
    mac = sys.platform == "darwin"
    found = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "git_commit": first_lines(["git", "-C", root, "rev-parse", "HEAD"]),
        "git_changes": first_lines(["git", "-C", root, "status", "--short"], 5),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        **(of_macos() if mac else of_linux()),
        "rust": first_lines(["rustc", "--version"]),
        "python": platform.python_version(),
        "mlx": mlx_version(root),
        "variables": {key: value for key, value in sorted(os.environ.items()) if VARIABLES.fullmatch(key)},
    }
    return {key: value for key, value in found.items() if value not in (None, "", {})}


def of_macos():
    def sysctl(name):
        return first_lines(["sysctl", "-n", name])

    return {
        "macos": first_lines(["sw_vers", "-productVersion"]),
        "macos_build": first_lines(["sw_vers", "-buildVersion"]),
        "mac": sysctl("hw.model"),
        "chip": sysctl("machdep.cpu.brand_string"),
        "performance_cores": sysctl("hw.perflevel0.physicalcpu"),
        "efficiency_cores": sysctl("hw.perflevel1.physicalcpu"),
        "gpu_cores": gpu_cores(first_lines(["system_profiler", "-json", "SPDisplaysDataType"], 10_000)),
        "memory_bytes": number(sysctl("hw.memsize")),
        "gpu_limit_mb": sysctl("iogpu.wired_limit_mb"),
        "power": first_lines(["pmset", "-g", "batt"]),
        "low_power_mode": low_power(first_lines(["pmset", "-g"], 100)),
        "xcode": first_lines(["xcodebuild", "-version"], 2),
        "developer_folder": first_lines(["xcode-select", "-p"]),
        "swift": first_lines(["swift", "--version"]),
    }


def of_linux():
    def line_of(path, pattern):
        found = re.search(pattern, Path(path).read_text(), re.M) if Path(path).exists() else None
        return found and found[1]

    kilobytes = number(line_of("/proc/meminfo", r"^MemTotal: *(\d+)"))
    return {
        "chip": line_of("/proc/cpuinfo", r"^model name\s*: (.*)"),
        "memory_bytes": kilobytes and kilobytes * 1024,
    }


def number(text):
    """The number in a text, or None."""
    return int(text) if text and text.isdecimal() else None


def gpu_cores(text):
    """The number of cores in `system_profiler -json SPDisplaysDataType`, with lines joined by ", "."""
    found = re.search(r'"sppci_cores"\s*:\s*"(\d+)"', text or "")
    return found and int(found[1])


def low_power(text):
    """The setting in `pmset -g`, True or False."""
    found = re.search(r"lowpowermode\s+(\d)", text or "")
    return found and found[1] == "1"


def mlx_version(root):
    """The version in the name of the prepared wheel's folder, or None."""
    folders = sorted((root / ".mlx/prefix").glob("mlx*.dist-info"))
    return ", ".join(folder.name[: -len(".dist-info")] for folder in folders) or None
