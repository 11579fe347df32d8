"""What the teacher's images are: test images, shape, classes and normalisation, each stated, found or asked for."""

from functools import partial

from zskt_dist.config import parse_config
from zskt_dist.data import open_dataset
from zskt_dist.errors import ConfigError
from zskt_dist.init import answers
from zskt_dist.init.answers import Found, Question, ask
from zskt_dist.init.settling import Settling, of_option
from zskt_dist.models import ImageShape, InputSpec, Statistics, input_spec_of_arch
from zskt_dist.models.logits import one_number
from zskt_dist.networks.inputs import declared_by_file
from zskt_dist.networks.sizes import Sizes, answered_classes, sizes_in
from zskt_dist.networks.weights import WeightsFile

_NORMALISATION = {
    "mean": (
        "How were the teacher's images normalised? The mean that was subtracted from pixels in [0, 1], one number for "
        "each channel, as torchvision's Normalize(mean=…, std=…) has it; 0 if nothing was subtracted.",
        "0.485,0.456,0.406",
        "0.5",
        answers.read_mean,
    ),
    "std": (
        "The standard deviation by which they were divided then, one number for each channel; 1 if they were not.",
        "0.229,0.224,0.225",
        "0.25",
        answers.read_std,
    ),
}
"""By key: the question, an answer for three channels, one for a single channel, and what reads an answer."""


class Images:
    """Settles them in turn, as each says something of the next.

    Args:
        file: The teacher's weights; None: they come with the network.

    Raises:
        UserError: the weights do not fit the network, whatever the images are.
    """

    def __init__(self, settling: Settling, file: WeightsFile | None) -> None:
        self._settling, self._file = settling, file
        self._arch: str = settling.tree["teacher"]["arch"]
        self._declared = declared_by_file(file)[2] if file else InputSpec()
        self._in_file = f"found in {file.location}" if file else ""
        self._sizes: Sizes = sizes_in(settling.config, file)
        self._usual = input_spec_of_arch(self._arch)

    def settle(self) -> None:
        """Settles everything; what nobody answers is `missing`. Raises UserError for what cannot work."""
        if classes := self._declared.num_classes or self._sizes.num_classes:
            self._settling.take("num_classes", classes, self._in_file, str(classes))
        self._settle_test_images()
        shape = self._settle_shape()
        if shape is not None:
            self._settle_classes(shape)
        self._settle_normalisation(shape)

    @property
    def _usual_source(self) -> str:
        """Whose defaults they are; weights of another number of classes were trained on other images than those."""
        found, own = self._settling.data.get("num_classes"), self._usual.num_classes
        other = f", which has {own:,} classes where yours has {found:,}" if found and own and found != own else ""
        return f"usual for {self._arch}{other}"

    def _settle_test_images(self) -> None:
        if self._settling.data["name"] != "none":
            self._open_test_images(None)
        elif self._settling.asking:
            question = Question(
                "--test-images",
                "test images",
                "Are there labelled test images, to measure the student on? It never learns from them. Name their "
                "folder, with Parquet files or a folder for each class.",
                "FOLDER",
                lambda folder: None if folder == "none" else self._open_test_images(folder),
                lambda _: "none",
            )
            ask(question, Found(None, "and accuracy is not measured"))

    def _open_test_images(self, folder: str | None) -> None:
        """Takes test images, and what they say of shape and classes; raises UserError where they do not fit.

        Args:
            folder: None: those that are stated.
        """
        stated, classes = self._settling.data, self._settling.data.get("num_classes")
        data = stated if folder is None else {**stated, "name": "parquet", "root": folder}
        unnormalised = {key: value for key, value in data.items() if key not in ("mean", "std")}
        config = parse_config({**self._settling.tree, "data": unnormalised})
        dataset = open_dataset(config, num_classes=classes)
        if classes and not dataset.counts_classes and dataset.num_classes != classes:
            problem = f"has images of {dataset.num_classes} classes, and the teacher tells {classes} apart"
            raise ConfigError("data.root", config.data.root, problem)
        answered_classes(config, dataset.image_shape, classes, self._file)
        self._settling.tree["data"] = data
        source = f"found in {config.data.root}" if data["name"] == "parquet" else f"that of {data['name']}"
        shape = dataset.image_shape
        self._settling.take("image_shape", list(shape), source, answers.write_shape(shape))
        if not dataset.counts_classes:
            self._settling.take("num_classes", dataset.num_classes, source, str(dataset.num_classes))

    def _settle_shape(self) -> ImageShape | None:
        if declared := self._declared.image_shape:
            self._settling.take("image_shape", list(declared), self._in_file, answers.write_shape(declared))
        if stated := self._settling.data.get("image_shape"):
            return self._checked(ImageShape(*stated))
        usual = self._usual.image_shape
        channels = self._sizes.channels or (usual.channels if usual else None)
        guess = None
        if self._sizes.sides and channels:
            guess = Found(ImageShape(channels, *self._sizes.sides), f"which {self._arch} needs for these weights")
        elif usual:
            guess = Found(usual._replace(channels=channels or usual.channels), self._usual_source)
        side = 28 if channels == 1 else 32
        question = Question(
            "--image-shape",
            "image shape",
            "How large were the images that the teacher was trained on, as it got them? Write channels,height,width: "
            "3 channels for colours, 1 for gray.",
            f"{channels or 3},{side},{side}",
            lambda text: self._checked(answers.read_shape(text, channels)),
            answers.write_shape,
        )
        return self._settling.resolve(question, "image_shape", guess, list)

    def _checked(self, shape: ImageShape) -> ImageShape:
        """The shape; raises ConfigError where the teacher cannot take such images."""
        answered_classes(self._settling.config, shape, self._settling.data.get("num_classes"), self._file)
        return shape

    def _settle_classes(self, shape: ImageShape) -> None:
        if "num_classes" in self._settling.data:
            return
        config = self._settling.config
        if answered := answered_classes(config, shape, None, self._file):
            if answered == 1:
                raise ConfigError("teacher.arch", self._arch, one_number())
            self._settling.take("num_classes", answered, "found in the teacher's answers", str(answered))
            return

        def read(text: str) -> int:
            count = answers.read_count(text)
            answered_classes(config, shape, count, self._file)
            return count

        text = "How many classes does the teacher tell apart?"
        question = Question("--classes", "classes", text, "10", read, str)
        self._settling.resolve(question, "num_classes", None, int)

    def _settle_normalisation(self, shape: ImageShape | None) -> None:
        data, channels = self._settling.data, shape.channels if shape else self._sizes.channels
        for key, (*_, read) in _NORMALISATION.items():
            if key in data and channels:  # one number may stand for all channels
                text = answers.write_numbers(data[key])
                data[key] = list(of_option(f"--{key}", text, partial(read, channels=channels)))
        if self._declared.statistics:
            for key, numbers in zip(_NORMALISATION, self._declared.statistics, strict=True):
                self._settling.take(key, list(numbers), self._in_file, answers.write_numbers(numbers))
        usual = self._usual.statistics
        if usual and channels not in (None, len(usual[0])):
            usual = None
        if "mean" not in data:
            self._resolve_numbers("mean", channels, usual)
        if usual and tuple(data.get("mean", usual[0])) != usual[0]:
            usual = None  # so its standard deviation is another one, too
        if "std" not in data:
            self._resolve_numbers("std", channels, usual)

    def _resolve_numbers(self, key: str, channels: int | None, usual: Statistics | None) -> None:
        """Asks for mean or standard deviation."""
        text, colour, gray, read = _NORMALISATION[key]
        guess = Found(usual[0 if key == "mean" else 1], self._usual_source) if usual else None
        example = colour if channels in (None, 3) else gray
        question = Question(f"--{key}", key, text, example, partial(read, channels=channels), answers.write_numbers)
        self._settling.resolve(question, key, guess, list)
