"""`python -m gpunn.collect_env`: what to paste into a bug report. See `gpunn.utils.collect_env`."""

from gpunn.utils.collect_env import get_env_info, get_pretty_env_info, main

__all__ = ["get_env_info", "get_pretty_env_info", "main"]

if __name__ == "__main__":
    main()
