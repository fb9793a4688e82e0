"""Options of the Trainer: how long, on what, how often. Free of torch and lightning."""

from __future__ import annotations

from dataclasses import dataclass

STRATEGIES = ("auto", "single", "ddp", "fsdp2", "deepspeed")


@dataclass
class TrainerConfig:
    """How a training stage is run; what it computes is decided elsewhere."""

    max_steps: int = 0
    """Stop after this many iterations although the stage has more; 0: all of the stage's ``steps``."""
    max_minutes: float = 0.0
    """Minutes after which this process saves and ends the stage; the same command goes on from there; 0: no limit."""
    hang_minutes: float = 8.0
    """Minutes without a finished step, validation batch or save after which every rank writes its stacks to
    ``STAGE/stacks`` and ends (below NCCL's own ten minutes, which would end it without a word); 0: wait for ever."""
    precision: str = "32"
    """``32``, or ``bf16-mixed``: bf16 computation with fp32 master weights."""
    accelerator: str = "auto"
    """``auto`` (a GPU where there is one), ``cpu`` or ``gpu``."""
    devices: int = 0
    """Processes per node; 0: as many as Slurm gives, else 1."""
    nodes: int = 0
    """Nodes; 0: as many as Slurm gives, else 1."""
    strategy: str = "auto"
    """``single``, ``ddp`` (whole copies), ``fsdp2`` (all models shared out), ``deepspeed`` (ZeRO, one engine per
    trained model), or ``auto``: ddp where there is more than one process."""
    shard_ranks: int = 0
    """fsdp2: ranks over which one copy is shared out, such as those of a node (HSDP); 0: all."""
    zero_stage: int = 2
    """deepspeed: 1 shares out optimiser states, 2 gradients too, 3 weights too."""
    frozen: str = "auto"
    """fsdp2, deepspeed: models that do not learn are whole on every rank (``replicate``), shared out (``shard``), or
    shared out with their parts in the CPU's memory (``offload``); ``auto``: shard (fsdp2), replicate (deepspeed)."""
    activations: str = "keep"
    """Of trained models, what blocks keep for the backward pass: ``keep`` all, ``selective`` (attention and half of the
    matrix products; the rest is computed again) or ``recompute`` (block inputs alone)."""
    compile: bool = False
    """Compile the denoisers' blocks, and MLPs and norms of an LM that learns; on a CPU, where weights and activations
    are kept whole, its layers. Takes a minute, and g++ (on a GPU Triton and gcc); without them a line says that nothing
    is compiled."""
    attention: str = ""
    """Kernel of the denoisers' attention on a GPU: ``flash3``, ``flash``, ``sdpa`` or ``cudnn``; empty: the first of
    these that is there. ``benchmarks/train_step.py --attention`` times them."""
    log_every: int = 10
    """Steps between logged steps."""
    val_every: int = 500
    """Steps between validations, where a stage has no ``val_every`` of its own; the stage's start and end are always
    validated; 0: start and end alone."""
    val_batches: int = 0
    """Validation batches per rank; 0: all."""
    ckpt_every: int = 500
    """Steps between checkpoints; the end is always saved; 0: the end alone."""
    keep_last: int = 2
    """Newest checkpoints kept."""
    keep_every: int = 0
    """Checkpoints whose step is a multiple of this are kept too; 0: none."""
    best: str = ""
    """Held-out figure by which the best checkpoint is kept too, such as ``eval/loss``, measured at the checkpoint's own
    step (so ``val_every`` is a multiple of ``ckpt_every``). Empty: none is kept for its figure."""
    best_is: str = "smallest"
    """Which value of ``best`` is the best: ``smallest`` or ``largest``."""
    resume: str = "auto"
    """``auto``: go on from the newest complete checkpoint, unless settings have changed (then it is refused);
    ``force``: go on with changed settings; ``never``: start afresh, older checkpoints are put aside."""
    threads: int = 0
    """Threads of one process's arithmetic; 0: torch's own choice."""

    def problems(self, where: str) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = []
        for key, allowed in (("precision", ("32", "bf16-mixed")), ("accelerator", ("auto", "cpu", "gpu")),
                             ("resume", ("auto", "force", "never")), ("strategy", STRATEGIES),
                             ("zero_stage", (1, 2, 3)), ("activations", ("keep", "selective", "recompute")),
                             ("frozen", ("auto", "replicate", "shard", "offload")),
                             ("best_is", ("smallest", "largest"))):
            if getattr(self, key) not in allowed:
                found.append(f"{where}.{key}={getattr(self, key)!r} must be one of {', '.join(map(str, allowed))}")
        if self.strategy == "single" and (self.devices > 1 or self.nodes > 1):
            found.append(f"{where}.strategy=single is one process, got devices={self.devices} nodes={self.nodes}; "
                         "use ddp or auto")
        if self.frozen != "auto" and self.strategy not in ("fsdp2", "deepspeed"):
            found.append(f"{where}.frozen={self.frozen} needs strategy=fsdp2 or deepspeed, got {self.strategy}")
        if self.shard_ranks and self.strategy != "fsdp2":
            found.append(f"{where}.shard_ranks={self.shard_ranks} needs strategy=fsdp2, got {self.strategy}")
        for key in ("max_steps", "max_minutes", "hang_minutes", "devices", "nodes", "val_every", "val_batches",
                    "ckpt_every", "threads", "shard_ranks", "keep_every"):
            if getattr(self, key) < 0:
                found.append(f"{where}.{key}={getattr(self, key)} must not be negative")
        if self.best and self.ckpt_every and self.val_every % self.ckpt_every:
            found.append(f"{where}.best needs checkpoints where validations are: val_every={self.val_every} must be a "
                         f"multiple of ckpt_every={self.ckpt_every}")
        for key in ("log_every", "keep_last"):
            if getattr(self, key) < 1:
                found.append(f"{where}.{key}={getattr(self, key)} must be at least 1")
        return found
