"""The store of a run: that of an earlier or interrupted one where the plan can go on with it, else a new one."""

from __future__ import annotations

import shutil
from pathlib import Path

from resegeo.errors import ResegeoError, notice, shown
from resegeo.run.header import Kept, StoredModel, StoreHeader
from resegeo.run.options import RunOptions
from resegeo.run.plan import Plan, differences
from resegeo.run.store import Store, stored_header
from resegeo.run.store_removal import ForeignFolderError, UnusableStoreError
from resegeo.run.stored import scene_facts


def existing_store(plan: Plan, url: str, options: RunOptions, *, alone: bool) -> Store | None:
    """Open the store of an earlier run if the plan can go on with it; None where a new one has to be made.

    Only where nobody else writes there (``alone``) is it swept of what was left half-written, and of damage.

    Raises
    ------
    ResegeoError:
        When it cannot be gone on with, naming why, and ``options.overwrite`` does not allow to replace it.

    """
    try:
        store = Store.open(url, sweep=alone)
    except ForeignFolderError:
        raise
    except UnusableStoreError:
        if not options.overwrite or plan.made_with is not None:
            raise
        return None
    if plan.made_with is not None and store is None:  # never made anew
        raise ResegeoError(f"{url} was removed by another run.")
    changed = [] if store is None else differs(store, plan, options)
    if not changed:
        found = store.sift() if store is not None and plan.made_with is None and alone else 0
        if found:
            notice(f"{found} work items of {url} were damaged and are computed anew.")
        return store
    if not options.overwrite:
        raise ResegeoError(
            f"{url} holds the work of another run; different: {', '.join(changed)}. Pass [[overwrite=True]] to "
            "discard it, or "
            "name another folder by [[output]]."
        )
    return None


def differs(store: Store, plan: Plan, options: RunOptions) -> list[str]:
    """Name what keeps a plan from going on with a store."""
    if plan.made_with is not None:  # words for a finished store: checked when the plan was laid
        return []
    changed = differences(store.header.image, plan.image_options())
    if changed:
        return changed
    if plan.settings.vote_segments and not store.header.layout.segments:
        return ["vote_segments (the store has no segments)"]
    if store.header.features:
        return []
    if options.keep_features or plan.correction is not None:
        return ["keep_features (the store holds scores)"]
    if store.channels(plan.classes.prompt_texts) is None:
        return ["prompts (the store holds scores of other words, and no features)"]
    return []


def new_store(plan: Plan, url: str, kept: Kept) -> Store:
    """Lay out a store for a plan, in place of what is there.

    Raises
    ------
    ResegeoError:
        When nothing can be written there, or too little room is left.

    """
    needed = plan.kept_bytes(kept)
    if "://" not in url:
        try:
            Path(url).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResegeoError(
                f"The folder of the store {shown(url)} cannot be written to ({error.strerror}); name another place by "
                "[[store]]."
            ) from error
        free = shutil.disk_usage(Path(url).parent).free
        if needed > free:
            raise ResegeoError(
                f"The store {url} may take {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free there. Make "
                "room, name another place by [[store]], or take a larger [[stride]]."
            )
    source = plan.source
    header = StoreHeader(
        image=plan.image_options(),
        settings=plan.settings.as_dict(),
        prompts=kept.prompts or plan.classes.prompt_texts,
        layout=plan.layout(kept),
        model=StoredModel(
            path=None if source.bundled else shown(source.path.resolve(), 4000),
            architecture=source.stated_architecture,
            activation=None if source.bundled else source.activation,
        ),
        scene=scene_facts(plan.scene),
        canvas=(plan.canvas.down, plan.canvas.across),
        arithmetic=kept.arithmetic,
    )
    return Store.create(url, header)


def keeps_features(plan: Plan, options: RunOptions) -> bool:
    """Whether a new store keeps features; say so where they are too large to be kept unasked."""
    kept = plan.keeps_features(keep=options.keep_features, discard=options.discard_store)
    if not kept and options.keep_features is None and not options.discard_store:
        notice(
            f"The features of this scene would take {plan.feature_bytes() / 1e9:.1f} GB and are not kept: other words "
            "will need a new pass over the image. Pass [[keep_features=True]] to keep them.",
        )
    return kept


def lacks_anything(plan: Plan, url: str, options: RunOptions) -> bool:
    """Whether a finished run has to be taken up again: its features are wanted now, or its store lost a part."""
    try:
        header = stored_header(url)
        if header is not None and header.finished and not options.keep_features:
            return False  # whatever became of its arrays
        store = Store.open(url)
    except ResegeoError:
        if options.keep_features:
            raise
        return False  # the results lie there all the same
    if store is None:
        return bool(options.keep_features)
    if options.keep_features and not store.header.features:
        return True
    return not store.header.finished and store.header.image == plan.image_options()
