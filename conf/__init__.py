"""Typed settings and their values: `compose(["method=pe", "privacy.epsilon=1"])` for `pipeline.run`."""

from conf.compose import compose

__all__ = ["compose"]
