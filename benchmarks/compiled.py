"""A network of the project compiled for training, an epoch in one call: what benchmarks of single steps run."""

import keras

from models import cnn
from pipeline import dataset, training
from pipeline.config import Model
from pipeline.dataset import Card, Split, TrainingBatches


def compiled(
    network: Model, card: Card, train: Split, seed: int, precision: str
) -> tuple[keras.Model, TrainingBatches]:
    """An untrained network with its optimizer and loss, and the batches of an epoch."""
    keras.utils.set_random_seed(seed)
    settings, classes = network.fit, len(card.classes)
    model = cnn.build(network, card.image, classes, precision, to_train=True)
    batches = dataset.TrainingBatches(train, classes, settings.batch_size, seed, settings.augmentation)
    model.compile(
        optimizer=training.optimizer(settings, batches.steps),
        loss=keras.losses.CategoricalCrossentropy(from_logits=network.head.output == "logits"),
        steps_per_execution=batches.steps,
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)
    return model, batches
