"""What the user asks for, settled before anything is computed: scene, model, method, plan, and where results go."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resegeo.checkpoints.model_card import Look, ModelCardNotice, caution
from resegeo.checkpoints.sources import ModelSource, SamSource, geometry, resolve_sam, unknown_words
from resegeo.classes.class_file import MOST_TEXTS, class_list, load_class_list
from resegeo.classes.class_list import ClassList
from resegeo.classes.merging import Merged, merged, parse_merges, recolored
from resegeo.classes.openai_templates import OPENAI_TEMPLATES
from resegeo.clip.tokens import check_prompts
from resegeo.composition.recipe import find_model
from resegeo.errors import (
    IgnoredSettingWarning,
    InputNotice,
    ResegeoError,
    ResegeoWarning,
    UsageError,
    notice,
    shown,
)
from resegeo.files import is_there
from resegeo.process import undisturbed
from resegeo.progress import Progress
from resegeo.run.options import Method, Options, RunOptions
from resegeo.run.plan import Job, Outputs, Plan, look_at, make_plan, plan_outputs, store_url
from resegeo.run.report import earlier_report
from resegeo.run.segmentation import flags
from resegeo.run.store import Store
from resegeo.run.store_place import is_store
from resegeo.run.store_removal import UnusableStoreError
from resegeo.run.stored import model_of_store, stored_scene
from resegeo.scene.formats import heard
from resegeo.scene.gcps import unplaced
from resegeo.scene.reader import Scene
from resegeo.scene.region import Region, region_of
from resegeo.scene.resampling import Canvas, ground_sample_distance
from resegeo.scene.windows import Rect
from resegeo.settings import LABEL_KNOBS, POLYGON_KNOBS, Settings, resolve_settings

if TYPE_CHECKING:
    import xarray as xr

    from resegeo.run.correction import Correction
    from resegeo.run.estimation import Estimate, Pace
    from resegeo.run.segmentation import Segmentation
    from resegeo.run.standing import Standing

Classes = str | Path | ClassList | Sequence[str | Mapping[str, Any]]


_SQUARE = 32
"""Side of the squares, nine at most, of which a scene's brightness is told."""


class VocabularyWarning(ResegeoWarning):
    """A prompt that the bundled model was never taught."""


@dataclass(frozen=True, repr=False)
class Run:
    """Everything of a run but the running: what :func:`resegeo.prepare` returns."""

    plan: Plan
    outputs: Outputs
    url: str
    """Of the store."""
    job: Job | None
    """The plan by reference, for other processes; None for a scene in memory and for a finished store."""
    options: RunOptions
    """Who computes and what is kept."""
    in_memory: bool = False
    """Whether the scene is an array, and its labels are returned as one."""

    @heard
    def pace(self) -> Pace:
        """Measure how fast this machine segments the scene, on a few windows of it; for others of its kind too.

        Raises
        ------
        ResegeoError:
            As :meth:`execute` would.

        """
        with undisturbed():
            from resegeo.run.estimation import pace_of

            plan, options = self.plan, self.options
            features = plan.keeps_features(keep=options.keep_features, discard=options.discard_store)
            return pace_of(plan, plan.kept(features=features), options)

    @heard
    def estimate(self, pace: Pace | None = None) -> Estimate:
        """Say what the run would need: items, memory, disk, time, measured on a few windows of the scene.

        ``pace`` is what :meth:`pace` measured on this scene or one of its kind; None: it is measured now.

        Raises
        ------
        ResegeoError:
            As :meth:`execute` would.

        """
        with undisturbed():
            from resegeo.run.estimation import estimate_run

            found = None if self.in_memory else _foreseen(self)
            return estimate_run(self.plan, self.url, found, self.options, pace=pace)

    @heard
    def execute(self) -> Segmentation | xr.DataArray:
        """Compute what is not there yet, and write it; see :func:`resegeo.segment`.

        Raises
        ------
        ResegeoError:
            With one sentence that says what is wrong and how to mend it.
        Interrupted:
            When the user interrupts; the same call goes on.

        """
        with undisturbed():
            from resegeo.run.beginning import run_files

            if self.in_memory:
                from resegeo.run.execution import run_codes

                return _as_array(self.plan, run_codes(self.plan, self.options))
            made = run_files(self.plan, self.outputs, self.url, self.job, self.options)
            if self.options.append is not None and made.failed:
                notice(f"{made.report} tells of windows that failed: the polygons are collected when all are there.")
            elif self.options.append is not None:
                from resegeo.run.collected import collect

                collect(made.report, Path(self.options.append), overwrite=self.options.overwrite)
            return made

    def facts(self) -> dict[str, str]:
        """Return what the run is, in a few words each."""
        plan = self.plan
        where = {"results": "an array"} if self.in_memory else {"results": str(self.outputs.folder), "store": self.url}
        return {
            "scene": plan.scene.source,
            "size": f"{plan.scene.height:,} × {plan.scene.width:,} pixels",
            "classes": ", ".join(spec.name for spec in plan.legend.drawn),
            "model": plan.source.name,
            "windows": f"{plan.grid.count:,} in {plan.items:,} work items",
            **where,
        }

    def __repr__(self) -> str:
        lines = [f"  {name:8} {shown(value)}" for name, value in self.facts().items()]
        return "\n".join(["<resegeo.Run>", *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{html.escape(shown(value, 400))}</td></tr>"
            for name, value in self.facts().items()
        )
        return f"<table><caption>resegeo run</caption>{rows}</table>"


def _foreseen(run: Run) -> Standing:
    """What the run would find; where it would be refused, that is said, and what is there counts as to be replaced."""
    from resegeo.run.standing import foresee

    try:
        return foresee(run.plan, run.outputs, run.url, run.options)
    except ResegeoError as error:
        found = foresee(run.plan, run.outputs, run.url, replace(run.options, overwrite=True))
        notice(f"This run would be refused: {error.text}")
        return found


@heard
def settle(
    scene: str | Path | xr.DataArray, classes: Classes | None, output: str | Path | None, options: Options
) -> Run:
    """Settle a run from what the user says; the parameters are those of :func:`resegeo.segment`.

    Raises
    ------
    ResegeoError:
        With one sentence that says what is wrong and how to mend it.

    """
    if isinstance(scene, str | Path) and is_store(str(scene)):
        return _settle_store(str(scene).rstrip("/"), classes, output, options)
    if classes is None:
        raise UsageError(
            "Classes are missing: give a class file by [[classes]]; `resegeo classes template` prints one. Only the "
            ".store.zarr of a finished run has classes already."
        )
    wanted = as_class_list(classes)
    view = options.view
    opened = look_at(scene, view)
    found, settings, sam = choose(wanted, options.method, options.run.progress)
    wanted = _templated(wanted, settings)
    region = region_of(opened, None if view.aoi is None else str(view.aoi), view.bbox)
    correction, listed = _corrected(wanted, options, settings, found, opened, region)
    listed, merge = shown_as(listed, options)
    plan = make_plan(
        opened,
        listed,
        settings,
        found,
        sam=sam,
        region=region,
        only=options.only,
        correction=correction,
        scores=options.kept.scores,
        merge=merge,
        crop=_crop(options, opened, region),
    )
    outputs = plan_outputs(plan, output)
    _spare_inputs(outputs, plan, classes, options)
    job = None
    if isinstance(scene, str | Path):
        job = Job(
            scene=_absolute(str(scene)),
            classes=listed,
            settings=replace(settings, segments=_absolute_files(settings.segments)),
            source=replace(
                found,
                path=found.path.absolute(),
                config=None if found.config is None else found.config.absolute(),
            ),
            sam=None if sam is None else replace(sam, path=sam.path.absolute()),
            view=replace(view, stretch=opened.stretch, aoi=None if view.aoi is None else _absolute(str(view.aoi))),
        )
    elif options.run.cluster is not None:
        raise UsageError("[[cluster]] needs a scene that other processes can open: give a path instead of an array.")
    in_memory = job is None and output is None
    _foresee_collecting(plan, outputs, options, in_memory=in_memory)
    return Run(plan, outputs, store_url(plan, outputs, options.store), job, options.run, in_memory)


def _settle_store(url: str, classes: Classes | None, output: str | Path | None, options: Options) -> Run:
    """Settle what becomes of a finished store: new words, or its run's labels shown in another way."""
    if output is None and "://" in url:
        raise UsageError(f"{shown(url)} is a URL: name a folder for the results by [[output]].")
    beside = url.rpartition("/")[0] or "."
    folder = output if output is not None else beside
    opened = _opened(url)
    if classes is not None:
        plan = _plan_of_store(url, opened, as_class_list(classes), options, opened.header.settings)
        word = Path(classes).stem if isinstance(classes, str | Path) else "words"
        outputs = plan_outputs(plan, folder, name=f"{plan.scene.name}.{word}")
    else:
        report_path = Path(beside) / f"{opened.header.scene.name}.json"
        report = None if "://" in url else earlier_report(report_path)
        if not report:
            raise UsageError(
                f"{url} lies beside no report of the run that made it, which tells the classes; give a class file by "
                "[[classes]]."
            )
        said = report["resegeo"]
        try:
            full = ClassList.from_json(said["classes"])
            plan = _plan_of_store(url, opened, full, options, said["settings"], said)
        except (ValueError, KeyError, TypeError) as error:
            raise ResegeoError(f"{report_path} is damaged; give a class file by [[classes]].") from error
        outputs = plan_outputs(plan, folder)
        plan = replace(plan, in_place=outputs.report.exists() and outputs.report.samefile(report_path))
    _spare_inputs(outputs, plan, classes, options)
    _foresee_collecting(plan, outputs, options)
    return Run(plan, outputs, url, None, options.run)


def shown_as(
    classes: ClassList, options: Options, standing: Mapping[str, Any] | None = None
) -> tuple[ClassList, Merged | None]:
    """Return a class list with the colours asked for, and how the map merges it.

    ``standing`` is how a finished run merges it; see :meth:`Merged.facts`.

    Raises
    ------
    ResegeoError:
        When a class is merged that there is not, or no class has a colour in the file of colours.

    """
    given, colors = options.kept.merge, options.kept.colors
    if standing is None:
        merge = merged(classes, classes.merge if given is None else parse_merges(given))
    else:
        owner = tuple(int(index) for index in standing["owner"])
        merge = Merged(classes, ClassList.from_json(standing["classes"]), owner)
    if colors is None:
        return classes, merge
    source = load_class_list(Path(colors))
    lists = [classes] if merge is None else [classes, merge.classes]
    names = {spec.name.casefold() for each in lists for spec in each.classes}
    unknown = [spec.name for spec in source.classes if spec.name.casefold() not in names]
    said, listed = f"[[colors={shown(colors)}]]", shown(", ".join(unknown), 200)
    if len(unknown) == len(source.classes):
        raise ResegeoError(f"{said} has no class of this map; it has {listed}.")
    if unknown:
        notice(f"{said}: no class of this map is called {listed}.", InputNotice)
    classes = recolored(classes, source)
    return classes, None if merge is None else Merged(classes, recolored(merge.classes, source), merge.owner)


def _crop(options: Options, scene: Scene, region: Region | None) -> Rect | None:
    """Return the part of the scene that results are cut to; None: all of it."""
    if not options.kept.crop:
        return None
    if region is None:
        raise UsageError("[[crop=True]] cuts results to a region; give one by [[aoi]] or [[bbox]].")
    frame = region.frame(scene.height, scene.width)
    if frame is None:
        raise ResegeoError(f"The region holds the centre of no pixel of {shown(scene.name)}; enlarge it.")
    return frame


def choose(
    classes: ClassList, method: Method, progress: Progress | None = None
) -> tuple[ModelSource, Settings, SamSource | None]:
    """Find what the options of model and method come to, whatever the scene.

    Raises
    ------
    ResegeoError:
        With one sentence that says what is missing or does not fit.

    """
    found = find_model(method.model, method.arch, method.activation, progress=progress)
    of_classes = {**(_fitting(classes.attention, found) or {}), **_templates_of(classes)}
    suited = None if found.card is None else found.card.segments
    settings = resolve_settings(
        method.knobs, preset=method.preset, file=method.settings, of_classes=of_classes, segments=suited
    )
    check_prompts(_templated(classes, settings), found)
    return found, settings, _sam_of(settings, method, progress)


def _templates_of(classes: ClassList) -> dict[str, str]:
    """Return what a class list says of the knob ``templates``: its own go before a preset's."""
    return {"templates": "file"} if classes.templates else {}


def _templated(classes: ClassList, settings: Settings) -> ClassList:
    """Put prompts into the templates that the settings ask for; see :class:`UsageError` for more than are sensible."""
    if settings.templates == "file":
        return classes
    count = len(classes.prompt_class) * len(OPENAI_TEMPLATES)
    if count > MOST_TEXTS:
        raise UsageError(
            f"[[templates=openai]] makes {count:,} texts of {len(classes.prompt_class):,} prompts, more than "
            f"{MOST_TEXTS:,}. Name fewer prompts, or templates of your own in the class file."
        )
    return replace(classes, templates=OPENAI_TEMPLATES)


def _corrected(
    classes: ClassList,
    options: Options,
    settings: Settings,
    source: ModelSource,
    scene: Scene,
    region: Region | None,
) -> tuple[Correction | None, ClassList]:
    """Read the examples, if there are any, and the class list that they lead to."""
    path, field = options.kept.examples, options.kept.field
    if path is None:
        if field is not None:
            raise UsageError("[[field]] names a field of the examples; give them by [[examples]].")
        return None, classes
    if options.run.keep_features is False:
        raise UsageError("[[examples]] are fitted on features, so that [[keep_features=False]] does not go with them.")
    from resegeo.run.correction import correction_of

    return correction_of(path, field, classes, settings, source, scene, region)


def _kept_colours(store: Store) -> Any | None:
    """Colours of the scene (height, width, 3) for examples; None, and a notice, where a store of features has none."""
    found = store.array("colours")
    if found is None and store.header.kept.features:
        notice(
            f"{store.url} keeps no colours of its scene: an earlier version made it, or they are damaged. Examples "
            "count by features alone, which draw borders less sharply; to have colours give them with the scene.",
            InputNotice,
        )
    return found


def _spare_inputs(outputs: Outputs, plan: Plan, classes: Any, options: Options) -> None:
    """Refuse to write over a file that the run reads; see :class:`ResegeoError`."""
    method = options.method
    inputs: dict[str, Sequence[Any]] = {
        "the scene itself": [plan.scene.source],
        "the file of [[aoi]]": [options.view.aoi],
        "a file of [[segments]]": [plan.settings.segments, *plan.settings.segments.split(",")],
        "the class file": [classes],
        "the file of [[settings]]": [method.settings],
        "the examples": [options.kept.examples],
        "the file of [[colors]]": [options.kept.colors],
        "the model": [method.model, method.sam_checkpoint],
    }
    for path in (path for path in (*outputs.files(), *outputs.beside) if is_there(path)):
        for what, names in inputs.items():
            found = [Path(name) for name in names if isinstance(name, str | Path) and is_there(name)]
            if any(path.samefile(name) for name in found):
                raise ResegeoError(f"The output {shown(path)} would replace {what}; name another folder by [[output]].")


def _foresee_collecting(plan: Plan, outputs: Outputs, options: Options, *, in_memory: bool = False) -> None:
    """Say before anything is computed why polygons cannot be added to a collecting file; see :class:`ResegeoError`."""
    if options.run.append is None:
        return
    from resegeo.outputs.collecting import refuse_collecting

    if in_memory:
        raise UsageError("[[append]] collects the polygons of results in a folder; name one by [[output]].")
    path, where = Path(options.run.append), plan.georeference
    if path.absolute() in (each.absolute() for each in outputs.files()):
        raise UsageError(f"[[append={shown(path)}]] is a file of this run's own results; name another one.")
    why = unplaced(where)
    if why is not None:
        raise ResegeoError(f"{plan.scene.source} {why}, so that there are none to be collected by [[append]].")
    placed = (where.crs or where.gcps_crs) is not None
    refuse_collecting(path, option="append", classes=plan.legend, placed=placed)


def _absolute(path: str) -> str:
    """Make a local path independent of the working folder, which workers need not share."""
    return str(Path(path).resolve()) if is_there(path) else path


def _absolute_files(segments: str) -> str:
    """Do so for what ``segments`` names, be it one file or several."""
    return _absolute(segments) if is_there(segments) else ",".join(map(_absolute, segments.split(",")))


def _opened(url: str) -> Store:
    """Open a store that a run has made."""
    store = Store.open(url)
    if store is None:
        raise ResegeoError(f"{url} is no store of resegeo, or its making was interrupted. Run `resegeo segment` again.")
    return store


def _plan_of_store(
    url: str,
    store: Store,
    classes: ClassList,
    options: Options,
    settings: Mapping[str, Any],
    standing: Mapping[str, Any] | None = None,
) -> Plan:
    """Lay the plan of new words over a finished store.

    ``settings`` are those that hold where none are given. ``standing`` are the options of a finished run that is shown
    in another way: what is said of neither codes nor region stays as it was.
    """
    header = store.header
    method = options.method
    given = [f"[[{name}]]" for name in _fixed_by_a_store(options)]
    if given:
        raise UsageError(f"{', '.join(given)}: fixed in {url} with its features; give the scene itself to change that.")
    if not store.is_finished():
        raise ResegeoError(
            f"{url} is not finished: {len(store.done())} of {store.items} work items are done. Run `resegeo segment "
            f"{header.scene.source}` with the same options again; it continues."
        )
    found = model_of_store(url, header, method)
    resolved = resolve_settings(
        {**settings, "stride": header.image["settings"]["stride"]}
        | {"overlap": None}
        | _templates_of(classes)
        | dict(method.knobs)
    )
    classes = _templated(classes, resolved)
    check_prompts(classes, found)
    view = options.view
    try:
        colours = None if options.kept.examples is None else _kept_colours(store)
        scene = stored_scene(header.scene, store.require("valid"), colours)
        region = region_of(scene, None if view.aoi is None else str(view.aoi), view.bbox)
        correction, classes = _corrected(classes, options, resolved, found, scene, region)
        codes = standing if standing is not None and not _codes_given(options) else {}
        classes, merge = shown_as(classes, options, codes.get("merge"))
        plan = make_plan(
            scene,
            classes,
            resolved,
            found,
            only=options.only,
            canvas=Canvas(scene, *header.canvas),
            made_with=header.image,
            correction=correction,
            scores=options.kept.scores,
            region=region,
            merge=merge,
            crop=_crop(options, scene, region),
        )
        if standing is not None:
            plan = _as_it_stands(plan, options, standing, codes)
    except ValueError as error:
        raise UnusableStoreError(
            f"The header of the store {url} is damaged ({shown(error)}). Run `resegeo segment` on the scene with "
            "[[overwrite=True]] to make it anew."
        ) from error
    if plan.layout(header.kept) != replace(header.layout, windows=plan.layout(header.kept).windows):
        raise UnusableStoreError(
            f"The header of the store {url} does not agree with itself: its sizes are not those that its scene and "
            f"{shown(found.name)} come to. Run `resegeo segment` on the scene with [[overwrite=True]] to make it anew."
        )
    if resolved.vote_segments and not header.layout.segments:
        raise UsageError(f"[[vote_segments=True]] needs segments, which {url} does not hold; give the scene itself.")
    if not header.features and correction is not None:
        raise ResegeoError(
            f"{url} holds scores of words and no features, which [[examples]] are fitted on; run the scene with "
            "[[keep_features=True]] [[overwrite=True]]."
        )
    if not header.features and store.channels(plan.classes.prompt_texts) is None:
        raise ResegeoError(
            f"{url} holds scores of other words and no features. Words known to it: "
            f"{shown(', '.join(texts[0] for texts in header.prompts[:8]), 200)}…; for others run the scene with "
            "[[keep_features=True]] [[overwrite=True]]."
        )
    return plan


def _codes_given(options: Options) -> bool:
    """Whether anything is said of the codes that labels are shown by."""
    kept, view = options.kept, options.view
    return kept.merge is not None or bool(kept.only) or kept.crop or view.aoi is not None or view.bbox is not None


def _as_it_stands(plan: Plan, options: Options, standing: Mapping[str, Any], codes: Mapping[str, Any]) -> Plan:
    """Keep of a finished run what nothing else is said of; ``codes`` are its options where that goes for codes too."""
    examples = standing.get("examples")
    if options.kept.examples is None and examples is not None:
        from resegeo.run.correction import correction_known

        plan = replace(plan, correction=correction_known(examples))
    only, crop = codes.get("only"), codes.get("crop")
    return replace(
        plan,
        scores=plan.scores or bool(standing.get("scores")),
        only=plan.only if only is None else frozenset(int(code) for code in only),
        crop=plan.crop if crop is None else Rect(*(int(value) for value in crop)),
        aoi=plan.aoi or codes.get("aoi"),
    )


def _fixed_by_a_store(options: Options) -> list[str]:
    """Names of the options given that a finished store leaves no choice of."""
    method, run = options.method, options.run
    given = {
        "preset": method.preset if method.preset != "default" else None,
        "settings": method.settings,
        **{name: value for name, value in asdict(options.view).items() if name not in ("aoi", "bbox")},
        "sam_checkpoint": method.sam_checkpoint,
        "sam_arch": method.sam_arch,
        "store": options.store,
        "cluster": run.cluster,
        "keep_features": run.keep_features,
        "discard_store": run.discard_store or None,
        **{name: value for name, value in method.knobs.items() if name not in LABEL_KNOBS | POLYGON_KNOBS},
    }
    return [name for name, value in given.items() if value is not None]


def _as_array(plan: Plan, codes: Any) -> xr.DataArray:
    """Codes as a DataArray on the scene's grid."""
    import rioxarray  # noqa: F401  registers the .rio accessor

    frame = plan.frame
    shown_ = {"y": slice(frame.row, frame.bottom), "x": slice(frame.col, frame.right)}
    array = plan.scene.array.isel(band=0, drop=True)
    result = (array if plan.crop is None else array.isel(shown_)).copy(data=codes)
    result.name = "classes"
    result.attrs = flags(plan.legend)
    georeference = plan.georeference
    if georeference.crs is not None:
        result = result.rio.write_crs(georeference.crs)
    if georeference.transform is not None:
        result = result.rio.write_transform(georeference.transform)
    return result.rio.write_nodata(plan.legend.nodata)  # type: ignore[no-any-return]


def as_class_list(classes: Classes) -> ClassList:
    """Read a class list from any form in which it may be given; see :class:`ResegeoError`."""
    if isinstance(classes, ClassList):
        return classes
    return load_class_list(Path(classes)) if isinstance(classes, str | Path) else class_list(classes)


def _fitting(attention: Mapping[str, int] | None, source: ModelSource) -> Mapping[str, int] | None:
    """Return a class file's layer counts where they describe the model's depth; say so where not."""
    depth = geometry(source).depth
    if attention is None or len(attention) < 3 or sum(attention.values()) == depth:
        return attention
    counts = ", ".join(f"{name}={count}" for name, count in attention.items())
    notice(
        f"The class file's attention layers ({counts}) describe a model of {sum(attention.values())} layers; "
        f"{source.name} has {depth}, so its own schedule is used.",
        IgnoredSettingWarning,
    )
    return None


def _sam_of(settings: Settings, method: Method, progress: Progress | None) -> SamSource | None:
    """Find SAM's checkpoint where the settings ask for SAM; say so where options of SAM are given in vain."""
    file, architecture = method.sam_checkpoint, method.sam_arch
    if settings.segments == "sam":
        return resolve_sam(None if file is None else str(file), architecture, progress=progress)
    if file is not None or architecture is not None or method.knobs.get("sam_mode") is not None:
        notice(
            f"SAM is not used, whatever its options say: the segments come from {settings.segments}. "
            "Pass [[segments=sam]] to use it.",
            IgnoredSettingWarning,
        )
    return None


def warn(plan: Plan) -> None:
    """Say what the user should know before the first pixel."""
    for text in plan.classes.notices:
        notice(text, IgnoredSettingWarning)
    if plan.source.bundled:
        unknown = unknown_words(text for texts in plan.classes.prompt_texts for text in texts[:1])
        if unknown:
            quoted = ", ".join(f"'{text}'" for text in unknown)
            notice(
                f"{quoted}: outside the vocabulary of the bundled model (`resegeo classes vocabulary` lists it), so "
                "expect nonsense there. Use a word of the list, or a larger CLIP by [[model]].",
                VocabularyWarning,
            )
    if plan.source.card is not None:
        said = caution(plan.source.card, _seen(plan), {spec.name: spec.prompts for spec in plan.classes.drawn})
        if said is not None:
            notice(said, ModelCardNotice)


def _seen(plan: Plan) -> Look:
    """Look at a scene as its model will: the size of its pixels, and a few squares of them."""
    scene = plan.scene
    own = ground_sample_distance(scene)
    gsd = plan.settings.gsd
    if gsd is None and own is not None:
        gsd = math.sqrt(own[0] * plan.canvas.down * own[1] * plan.canvas.across)
    grey = scene.palette is None and len(set(scene.bands)) == 1
    total, count = 0.0, 0
    side = min(_SQUARE, scene.height), min(_SQUARE, scene.width)
    rows, cols = (
        sorted({k * (size - part) // 2 for k in range(3)})
        for size, part in zip((scene.height, scene.width), side, strict=True)
    )
    # A store keeps no pixels that could be looked at.
    for row, col in product(rows, cols) if plan.made_with is None else ():
        try:
            rgb, valid = scene.read(row, col, *side)
        except ResegeoError:  # the run itself says it of its blocks
            continue
        total += float(rgb[valid].sum()) / 3
        count += int(valid.sum())
    return Look(gsd, total / count if count else None, grey)
