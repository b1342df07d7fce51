"""Advice for a network that does not beat a simple baseline."""

from pipeline.core.config import AnyNetwork, NetworkConfig


def advice(network: AnyNetwork) -> str:
    """List changes to try, given the training settings of the network."""
    fit = network.fit
    changes = [f"more epochs than {fit.epochs}", f"a batch_size below {fit.batch_size}"]
    if not (fit.augmentation.active or fit.augmentation.mixes):
        changes.append("augmentation: light or strong")
    if isinstance(network, NetworkConfig):
        if any(block.batch_norm or block.normalization.kind == "batch" for block in network.blocks):
            changes.append("group instead of batch normalization")
        changes.append("global pooling or fewer units in the head")
    changes.append(f"a learning rate other than {fit.learning_rate:g}")
    return f"try {', '.join(changes[:-1])}, or {changes[-1]}; see docs/training.md#small-datasets"
