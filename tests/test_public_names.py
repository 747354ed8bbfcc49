"""What `import rlm_env` gives, and that it costs little."""

import subprocess
import sys

import rlm_env

HEAVY = ("torch", "vllm", "transformers", "datasets", "numpy", "aiohttp", "rich")
OTHER_ROOMS = ("rlm_env.runs", "rlm_env.evals", "rlm_env.train", "rlm_env.cli")


def test_all_public_names_exist():
    assert rlm_env.__all__ == sorted(rlm_env.__all__, key=lambda name: (name.islower(), name))
    for name in (*rlm_env.__all__, "__version__"):
        assert getattr(rlm_env, name) is not None


def test_importing_the_package_loads_no_heavy_library_and_no_room_above():
    program = (
        f"import sys, rlm_env; loaded = set(sys.modules) & set({HEAVY + OTHER_ROOMS}); print(*loaded); "
        "sys.exit(bool(loaded))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
