"""Options of what watches a training stage. Plain values, free of torch and lightning."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TrackingConfig:
    """Where metrics go besides ``metrics.jsonl``, which is always written."""

    kind: str = "mlflow"
    """``mlflow``, or ``off``: metrics.jsonl alone."""
    uri: str = ""
    """MLflow's tracking URI; empty: sqlite:///ROOT/mlflow.db, with artefacts in ROOT/mlartifacts."""
    experiment: str = "streamchar"
    """Name of the MLflow experiment; the run in it is called NAME/STAGE."""
    finish_s: float = 60.0
    """Seconds to wait at a stage's end for what has not been sent yet."""

    def problems(self, where: str) -> list[str]:
        """Everything that is wrong with these values, in words."""
        if self.kind not in ("mlflow", "off"):
            return [f"{where}.kind={self.kind!r} must be 'mlflow' or 'off'"]
        return []


@dataclass
class AlertConfig:
    """Messages to a webhook when a training stage stops before its end, fails, was killed, diverges or misses
    playback."""

    url: str = ""
    """Where to: an http(s) address that takes JSON with ``text``, as chat services do. Empty: no alerts. It is a secret
    and hidden wherever the configuration is written; ``'${oc.env:NAME}'`` keeps it off the command line too."""
    spike: float = 20.0
    """Deviations by which the loss must stand out (``stability/spike_loss``) to be told as divergence, as updates that
    are not finite always are; 0: never."""
    repeat_minutes: float = 60.0
    """Trouble of one kind is told again after so long."""
    timeout_s: float = 10.0
    """The longest that one message may take, and that the stage's end waits for the last."""

    def problems(self, where: str) -> list[str]:
        """Everything that is wrong with these values, in words; never the address itself."""
        found = [] if self.url.startswith(("http://", "https://")) or not self.url else [
            f"{where}.url must begin with https:// or http:// (or be empty: no alerts)"]
        return found + [f"{where}.{key}={getattr(self, key):g} must not be negative"
                        for key in ("spike", "repeat_minutes") if getattr(self, key) < 0] + (
            [] if self.timeout_s > 0 else [f"{where}.timeout_s={self.timeout_s:g} must be positive"])


@dataclass
class CallbackConfig:
    """Callbacks of the training stages; a cadence of 0 turns one off."""

    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Experiment tracking."""
    alerts: AlertConfig = field(default_factory=AlertConfig)
    """Messages to a webhook; off unless ``alerts.url`` is given."""
    ema: bool = True
    """Average the weights (decay and start are the stage's ``ema_decay`` and ``ema_start``)."""
    pointer: bool = True
    """Log the pointer's alignment at every validation, as figures and as a heat map."""
    samples_every: int = 0
    """Steps between sample clips; -1: at the stage's end only."""
    probe_every: int = 0
    """Steps between throughput probes; -1: at the stage's end only."""
    probe_chunks: int = 3
    """Chunks of a probe's stream."""
    progress: bool = True
    """Progress bar on a terminal, one line per logged step in a log."""

    def problems(self, where: str) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = [f"{where}.{key}={getattr(self, key)} must be -1, 0 or more" for key in ("samples_every", "probe_every")
                 if getattr(self, key) < -1]
        if self.probe_chunks < 1:
            found.append(f"{where}.probe_chunks={self.probe_chunks} must be at least 1")
        return found
