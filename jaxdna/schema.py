"""The schema: every key of a configuration with its default, its meaning and what it accepts.

A key is added here and nowhere else: flags, `--help`, validation and the run folder's check read
these tables. Like `jaxdna.config` this module never imports jax.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from jaxdna.errors import UserError, nearest
from jaxdna.extensions import load_extensions
from jaxdna.fields import (
    Field,
    axis,
    choice,
    flag,
    fraction,
    integer,
    number,
    positive,
    seconds,
    share,
    sizes,
    text,
)


def _are_seconds(text: str) -> bool:
    try:
        return all(0 <= float(part) < math.inf for part in text.split(",") if part.strip())
    except ValueError:
        return False


def _are_steps(text: str) -> bool:
    first, _, stop = text.partition(":")
    digits = all(part.isascii() and part.isdigit() and len(part) < 16 for part in (first, stop))
    return text == "" or (digits and int(first) < int(stop))


def _identity(fields: Mapping[str, Field]) -> dict[str, Field]:
    return {key: replace(field, identity=True) for key, field in fields.items()}


_IMAGES = {
    "data_dir": text(
        "", "folder of prepared tensorflow-datasets; empty for its own (~/tensorflow_datasets)"
    ),
    "synthetic": flag(False, "labelled random images of the same shape, for timing and planning"),
    "train_examples": integer(0, "images to train on; 0 for all that there are", 0, 10**9),
    "validation_examples": integer(
        0, "training images kept for early stopping; 0 for a tenth of them", 0, 10**9
    ),
    "test_examples": integer(0, "images for the reported score; 0 for all", 0, 10**9),
}

TASK_CHOICES = ("auto", "binary", "multiclass", "multilabel", "regression", "counts")
STRAND_CHOICES = ("average", "forward", "max")
ATTRIBUTION_METHODS = ("deeplift_shap", "integrated_gradients", "saliency", "ism")
ATTRIBUTION_REFERENCES = ("dinucleotide_shuffle", "zeros", "background")

DATA_SETS: dict[str, dict[str, Field]] = {
    "tal1": {
        "motif": text(
            "TAL1_known4",
            "a preset (`jaxdna simulate --list`), or a motif file or URL: MEME, JASPAR, HOMER, "
            "gimme, TRANSFAC or CIS-BP",
        ),
        "gc": Field(
            0.4, "GC fraction of the background", "a number between 0 and 1", lambda v: 0 < v < 1
        ),
        "length": integer(500, "bases in each sequence", high=10**8),
        "train_examples": integer(12_800, "sequences to train on", high=10**9),
        "validation_examples": integer(3_200, "sequences for early stopping", high=10**9),
        "test_examples": integer(4_000, "sequences for the reported score", high=10**9),
    },
    "mnist": _IMAGES,
    "cifar10": _IMAGES
    | {"augment": flag(True, "flip and shift every training image, differently in every epoch")},
    "fasta": {
        "task": choice(
            "auto",
            TASK_CHOICES,
            "what the targets are; auto: two classes, and anything else is refused",
        ),
        "positives": text(
            "", "FASTA file of bound sequences; with labels_in_headers, of all sequences"
        ),
        "negatives": text(
            "", "FASTA or BED file of unbound ones, or dinucleotide_shuffle, or gc_matched"
        ),
        "bed": text("", "BED or narrowPeak file of bound intervals; needs data.genome"),
        "genome": text(
            "", "genome that the intervals lie on: FASTA, plain or compressed, or .2bit"
        ),
        "table": text(
            "",
            "instead of the others: TSV or CSV file with rows of sequence and 0 or 1, or with a "
            "header that names a column sequence and columns of targets",
        ),
        "test_positives": text(
            "", "file like data.positives whose records are the test split, instead of a share"
        ),
        "test_negatives": text("", "FASTA file of the unbound ones of the test split"),
        "test_table": text("", "file like data.table whose rows are the test split"),
        "targets": text(
            "", "columns of data.table to learn, joined by commas; empty: all that are numbers"
        ),
        "labels_in_headers": flag(
            False, "the headers of data.positives say the target: >1, >name label=1 or >name|1"
        ),
        "tracks": text(
            "", "bigWig files, joined by commas: targets of the windows of data.bed; no negatives"
        ),
        "track_statistic": choice(
            "mean", ("mean", "sum", "max"), "which statistic of a track is the target of a window"
        ),
        "track_bases": integer(
            0, "bases in the middle of a window whose track counts; 0: all", 0, 10**8
        ),
        "strand_pairs": text(
            "", "targets that the other strand exchanges, as plus:minus, joined by commas"
        ),
        "length": integer(
            0, "bases of every example; 0: as the files have it, 500 for intervals", 0, 10**8
        ),
        "lengths": choice(
            "error", ("error", "center_crop", "pad"), "what to do where lengths differ"
        ),
        "ambiguous": choice(
            "zero", ("zero", "uniform", "error"), "what N and other ambiguous letters become"
        ),
        "validation_fraction": fraction(0.16, "share of the records for early stopping"),
        "test_fraction": share("share of the records for the reported score; 0: no test", 0.2),
        "valid_chroms": text("", "instead of a share: chromosomes for validation, as chr8,chr9"),
        "test_chroms": text("", "instead of a share: chromosomes for the test"),
        "split_table": text(
            "", "instead of shares: file with columns id and split, as `jaxdna simulate` writes"
        ),
        "similarity": Field(
            0.25,
            "sequences that share this fraction of their k-mers or more stay in one split, as do "
            "those whose names say that they overlap; 0: neither is looked at",
            "a number, 0 to 1",
            lambda v: 0 <= v <= 1,
            before=0.0,
        ),
        "folds": Field(
            0,
            "number of folds for cross-validation; 0 for none",
            "0, or an integer of 2 or more",
            lambda v: v == 0 or v >= 2,
        ),
        "fold": integer(-1, "the only fold to train; -1 for each in turn", low=-1),
    },
}

# Keys of every data set and network of sequences, also of those that others add: what is answered
# from both strands must have been trained on both.
_OF_SEQUENCES: dict[str, dict[str, Field]] = {
    "data": {
        "reverse_complement": flag(
            True, "flip every training sequence to its other strand half of the time"
        ),
    },
    "model": {
        "strands": choice(
            "average",
            STRAND_CHOICES,
            "how the logits of both strands are combined into one prediction",
        ),
    },
}
_SCAN = choice(
    "auto",
    ("auto", "convolution", "matmul", "pallas_gpu", "pallas_tpu", "plain"),
    "how the filters are computed; auto: as suits the devices",
)


def _odd(default: int, meaning: str) -> Field:
    return Field(default, meaning, "an odd integer, 1 or more", lambda v: v >= 1 and v % 2 == 1)


MODELS: dict[str, dict[str, Field]] = {
    "motif_cnn": {
        "filters": integer(16, "convolution filters", high=10**6),
        "width": integer(15, "bases that a filter spans", high=10**6),
        "scan": _SCAN,
    },
    "multiscale": {
        "filters": integer(64, "filters for long sites", high=10**6),
        "width": integer(15, "bases that they span", high=10**6),
        "short_filters": integer(64, "filters for short words", high=10**6),
        "short_width": integer(8, "bases that those span", high=10**6),
        "dense": sizes("32", "units of the hidden dense layers"),
        "dropout": replace(
            share("share of the hidden dense layers' outputs to drop in training"), default=0.4
        ),
        "scan": _SCAN,
    },
    "deep_cnn": {
        "filters": sizes("64,64", "filters of each block's convolution"),
        "width": _odd(15, "bases that a filter of the first block spans, an odd number"),
        "inner_width": _odd(5, "positions that a filter of the later blocks spans, an odd number"),
        "pool": integer(4, "positions of which each block keeps the largest", high=10**6),
        "dense": sizes("64", "units of the hidden dense layers"),
        "dropout": replace(
            share("share of the hidden dense layers' outputs to drop in training"), default=0.3
        ),
    },
    "dilated": {
        "filters": integer(64, "convolution filters of every layer", high=10**6),
        "width": _odd(21, "bases that a filter of the stem spans, an odd number"),
        "layers": integer(8, "residual layers, with dilations 2, 4, 8 and so on", high=24),
    },
    "attention": {
        "filters": integer(64, "channels of every layer", high=10**6),
        "width": _odd(15, "bases that a filter of the stem spans, an odd number"),
        "pool": integer(10, "positions of which the stem keeps the largest", high=10**6),
        "blocks": integer(2, "transformer blocks", high=1000),
        "heads": integer(4, "attention heads in each block; they share the channels", high=1000),
        "dropout": share("share of the last features to drop in training"),
    },
    "image_cnn": {
        "filters": sizes("32,64,64", "filters of both convolutions of each block"),
        "padding": choice("same", ("same", "valid"), "of each block's first convolution"),
        "dense": sizes("512", "units of the hidden dense layers"),
        "dropout": share("share of the hidden dense layers' outputs to drop in training"),
    },
    "mlp": {
        "dense": sizes("512,512", "units of the hidden dense layers"),
        "dropout": share("share of the hidden layers' outputs to drop in training"),
    },
}
MODELS["gapped"] = MODELS["multiscale"] | {
    "span": integer(10, "bases that a gapped word spans at most", low=2, high=10**6),
    "letters": integer(6, "letters of it that count, its first among them", 2, 10),
    "patterns": integer(24, "choices of these letters at most", high=10**4),
    "kmer_share": share("weight of the k-mers' answer in the mean of both branches", 0.5),
    "both_strands": flag(
        False, "take a filter's best place on either strand; not with strands=forward"
    ),
    "inner_filters": integer(
        0, "filters of a second convolution, which sees how sites lie; 0: none", 0, 10**6
    ),
    "inner_width": _odd(7, "windows that a filter of it spans, an odd number"),
    "pool": integer(4, "bases of a window, in which a filter's best place counts", high=10**6),
}

IMAGE_SETS = ("mnist", "cifar10")
IMAGE_MODELS = ("image_cnn", "mlp")
CONVOLVE_IMAGES = ("image_cnn",)

_IDENTITY = _identity(
    {
        "seed": integer(0, "decides data, initial parameters and batches", 0, 2**31 - 1),
        "train.seed": integer(
            -1, "decides only initial parameters and batches; -1: as seed", -1, 2**31 - 1
        ),
        "members.seeds": integer(
            1, "networks trained at once, each from a train.seed of its own", high=10**4
        ),
        "members.folds": Field(
            0,
            "parts of the training and validation examples, each held out by networks of its own; "
            "0 for none",
            "0, or an integer, 2 to 10,000",
            lambda v: v == 0 or 2 <= v <= 10**4,
        ),
        "members.fold": integer(-1, "the only part to hold out; -1 for each in turn", low=-1),
        "members.distil": flag(
            False, "train one network more, on the answers of the ensemble, in WORKDIR/student"
        ),
        "members.grid": text(
            "",
            "settings to compare, as optimizer.learning_rate=0.005,0.02;optimizer.weight_decay=0,1",
        ),
        "optimizer.name": choice("adam", ("adam", "sgd", "momentum"), "update rule"),
        "train.batch_size": integer(32, "GLOBAL batch: examples per step over all devices"),
        "train.class_weight": choice(
            "none",
            ("none", "balanced"),
            "how much each example counts in the loss; balanced: all classes count the same in "
            "total",
        ),
        "train.precision": choice(
            "float32",
            ("float32", "bfloat16"),
            "type of activations; parameters, optimizer, logits and loss are always float32",
        ),
        "train.early_stopping.metric": choice(
            "val_loss",
            ("val_loss", "val_accuracy", "val_auroc", "val_pearson", "epoch"),
            "decides which parameters are best; epoch: those of the last one are",
        ),
    }
)

_SETTINGS = {
    "recipe": choice(
        "fixed",
        ("fixed", "sized"),
        "sized: network and training follow from number, length and GC of the sequences, and "
        "every other flag overrides that",
    ),
    "optimizer.learning_rate": positive(1e-3, "peak step size"),
    "optimizer.schedule": choice(
        "constant", ("constant", "cosine", "linear"), "how the step size falls after the warm-up"
    ),
    "optimizer.warmup_epochs": number(0.0, "epochs in which the step size rises from 0"),
    "optimizer.weight_decay": number(0.0, "decoupled decay of all kernels but the last layer's"),
    "optimizer.momentum": Field(
        0.9, "decay of momentum's trace", "a number, 0 to below 1", lambda v: 0 <= v < 1
    ),
    "optimizer.b1": Field(
        0.9, "decay of Adam's first moment", "a number, 0 to below 1", lambda v: 0 <= v < 1
    ),
    "optimizer.b2": Field(
        0.999, "decay of Adam's second moment", "a number, 0 to below 1", lambda v: 0 <= v < 1
    ),
    "optimizer.eps": positive(1e-7, "Adam's guard against division by zero (Keras: 1e-7)"),
    "train.epochs": integer(20, "epochs to train, at most", high=10**7),
    "train.accumulate": integer(
        1, "parts of a batch that follow one another, to fit a large one into memory", high=10**6
    ),
    "train.steps_per_call": integer(
        0, "steps in one dispatch to the devices; 0 lets the backend choose", low=0, high=10**6
    ),
    "train.early_stopping.patience": integer(
        0, "epochs without improvement before stopping; 0 never stops early", low=0
    ),
    "train.early_stopping.min_delta": number(0.0, "smaller changes do not count as improvements"),
    "mesh.data": axis(-1, "shards of each batch, parameters mirrored"),
    "mesh.fsdp": axis(1, "shards of each batch, parameters and optimizer state sharded as well"),
    "mesh.model": axis(1, "shards of filters and features"),
    "mesh.seq": axis(1, "shards of each sequence's positions (of an image's rows)"),
    "mesh.stage": axis(1, "stages that the layers are cut into (strategy=pipeline)"),
    "mesh.member": axis(1, "shards of the members, networks that are trained at once"),
    "mesh.dcn.data": integer(1, "the part of mesh.data that crosses hosts or slices"),
    "mesh.dcn.fsdp": integer(1, "the part of mesh.fsdp that crosses hosts or slices"),
    "mesh.dcn.stage": integer(1, "the part of mesh.stage that crosses hosts or slices"),
    "gradient_sync.method": choice(
        "auto",
        ("auto", "ring", "hierarchical"),
        "how gradients are summed; auto: XLA's own, on a CPU's cores a ring for image networks",
    ),
    "gradient_sync.bucket_mb": number(
        0.0, "MiB of gradients that travel together; 0: each array by itself"
    ),
    "strategy": choice(
        "spmd", ("spmd", "pipeline", "parameter_server"), "how the devices share the work"
    ),
    "pipeline.schedule": choice(
        "1f1b",
        ("sequential", "gpipe", "1f1b", "pipedream", "2bw", "spectrain"),
        "order of the stages' passes; the first three give the numbers of one device",
    ),
    "pipeline.microbatches": integer(4, "pieces that each batch is cut into", high=10**6),
    "pipeline.boundaries": text(
        "", "layers (names or numbers from 0) that begin the later stages; empty: measured balance"
    ),
    "parameter_server.workers": integer(2, "processes that compute gradients", high=10**4),
    "parameter_server.servers": integer(1, "processes that share the variables", high=10**4),
    "parameter_server.max_staleness": integer(
        8, "most updates by others between a worker's pull and its push; 0 is synchronous", low=0
    ),
    "parameter_server.devices_per_worker": integer(1, "devices of each worker", high=4096),
    "parameter_server.checkpoint_every": integer(
        50, "updates between a server's checkpoints: fewer are lost when it dies"
    ),
    "parameter_server.address": text("", "HOST:PORT of a Ray cluster; empty starts one here"),
    "parameter_server.patience": positive(60.0, "seconds to wait for a cluster or a server"),
    "parameter_server.delays": Field(
        "",
        "for experiments: seconds that each worker sleeps in every step, with commas",
        "numbers of 0 or more, with commas",
        _are_seconds,
    ),
    "checkpoint.every_epochs": integer(1, "epochs between checkpoints"),
    "checkpoint.keep": integer(3, "checkpoints to keep; each holds the best parameters too"),
    "cluster.coordinator": text("", "HOST:PORT of process 0, where nothing else says it"),
    "cluster.processes": integer(1, "number of processes, with a coordinator", high=10**6),
    "cluster.process_id": integer(0, "which of them this is, from 0", low=0, high=10**6),
    "cluster.start_seconds": integer(300, "how long to wait for the other processes"),
    "cluster.heartbeat_seconds": integer(100, "silence after which a process counts as dead"),
    "runtime.platform": choice(
        "auto", ("auto", "cpu", "cuda", "rocm", "tpu"), "which backend runs the steps"
    ),
    "runtime.cpu_devices": integer(
        0,
        "simulated devices on the CPU; 0: one, and for image convolutions one for each core",
        low=0,
        high=4096,
    ),
    "runtime.require_accelerator": flag(False, "refuse to run on the CPU"),
    "runtime.data_cache": text(
        "auto",
        "folder for converted sequences and indices of genomes; `auto` is the user's cache folder",
    ),
    "runtime.compilation_cache": text(
        "auto", "folder for compiled programs; `auto` is the user's cache folder, `off` none"
    ),
    "runtime.profile": Field(
        "",
        "steps to trace for XProf, counted from 0 over the whole run; empty: none",
        "START:STOP, two whole numbers of which the first is smaller (STOP is not traced)",
        _are_steps,
    ),
    "watchdog.start": seconds(900, "to find the devices and load the data"),
    "watchdog.compile": seconds(3600, "to compile all programs"),
    "watchdog.step": seconds(900, "for one call of training steps"),
    "watchdog.evaluation": seconds(1800, "for one evaluation"),
    "watchdog.save": seconds(1800, "for one checkpoint"),
}

COMMON: dict[str, Field] = _IDENTITY | _SETTINGS


def schema(data: str, model: str) -> dict[str, Field]:
    """Returns every legal key, dotted, for a data set and a model.

    Args:
      data: a key of `DATA_SETS`.
      model: a key of `MODELS`.

    Raises:
      UserError: one of the two is not known, or an installed extension cannot be imported.
    """
    load_extensions()
    fields = dict(COMMON)
    for section, name, tables in (("data", data, DATA_SETS), ("model", model, MODELS)):
        if name not in tables:
            raise UserError(f"--config.{section}.name={name} is unknown; {nearest(name, tables)}")
        own = {"name": choice(name, tables, f"which {section}"), **tables[name]}
        if name not in (*IMAGE_SETS, *IMAGE_MODELS):
            own |= _OF_SEQUENCES[section]
        fields |= _identity({f"{section}.{key}": field for key, field in own.items()})
    return fields
