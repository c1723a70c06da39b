"""The page for readers: it says what the run's files say, stands alone, and obeys nothing that a file says."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from fakes import quick
from PIL import Image
from rasterio.transform import from_origin
from rasters import write_raster

import resegeo
import resegeo.run.compute
from resegeo.errors import ResegeoError
from resegeo.evaluation.evaluate import evaluate
from resegeo.run.results import scores_of
from resegeo_cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore::resegeo.errors.ResegeoWarning")
EVIL = "<script>document.title='taken'</script>"
WORDS = f"""
templates: ["{{}} & <b>"]
classes:
  - {{name: "{EVIL}", prompts: [water, '"><img src=x onerror=alert(1)>']}}
  - forest
  - {{name: road, threshold: 0.99}}
"""


class Tags(HTMLParser):
    """Tags with their attributes, and the text of each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = self.inside = ""
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)
        elif self.inside != "style":
            self.text += f"{data} "

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def write_scene(path, seed=0, crs="EPSG:32633"):
    areas = np.random.default_rng(seed).integers(0, 255, (3, 3, 3)).repeat(32, 1).repeat(32, 2).astype(np.uint8)
    where = from_origin(500_000, 5_200_000, 10, 10) if crs else None
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=3, height=96, width=96, crs=crs, transform=where
    ) as f:
        f.write(areas)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A batch of two scenes, segmented by a quick stand-in for the model."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "scenes").mkdir()
    for seed, name in enumerate(("a", "b")):
        write_scene(folder / f"scenes/{name}.tif", seed)
    (folder / "classes.yml").write_text(WORDS)
    load = resegeo.run.compute.load_encoder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resegeo.run.compute.load_encoder", lambda *a, **k: quick(load(*a, **k)))
        options = ["--prompts", str(folder / "classes.yml"), "-o", str(folder / "out"), "--report"]
        shown = CliRunner().invoke(main, ["batch", str(folder / "scenes"), *options])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines()[-1] == str(folder / "out/report.html")
    return folder / "out"


@pytest.fixture
def folder(runs, tmp_path, monkeypatch):
    """One run of its own to change; its pictures are small, which is quick."""
    monkeypatch.setattr("resegeo.reports.layers.SHARP", 200)
    return shutil.copytree(runs / "a", tmp_path / "a")


def picture(attributes):
    return Image.open(io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2])))


def test_areas_shares_and_scores_are_those_of_the_run(folder):
    html, summary, table = resegeo.report(folder)
    with (folder / "a.areas.csv").open(encoding="utf-8", newline="") as stream:
        areas = list(csv.DictReader(stream))
    facts = json.loads(summary.read_text("utf-8"))
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for area, row, fact in zip(areas, rows, facts["classes"], strict=True):
        assert area["class"] == row["name"] == fact["name"]
        for key in ("pixels", "m2", "ha", "share", "mean_score"):
            assert float(area[key] or -1) == float(row[key] or -1) == float(-1 if fact[key] is None else fact[key])
    assert facts["ha"] == pytest.approx(96 * 96 / 100)
    assert "92.2 ha" in Tags(html.read_text("utf-8")).text


def test_confidence_is_counted_over_all_pixels(folder):
    facts = json.loads(resegeo.report(folder)[1].read_text("utf-8"))
    scores = np.asarray(scores_of(folder / "a.classes.tif")[:]).astype(float)
    scores = scores[scores <= 200] / 200
    assert facts["confidence"]["mean"] == pytest.approx(scores.mean(), abs=1e-4)
    ends = [0, 0.3, 0.5, 0.7, 0.9, 1.01]
    assert [each["share"] for each in facts["confidence"]["levels"]] == pytest.approx(
        np.histogram(scores, ends)[0] / scores.size, abs=1e-6
    )


def test_the_page_stands_alone_and_runs_no_script_but_ours(folder):
    text = resegeo.report(folder)[0].read_text("utf-8")
    tags = Tags(text)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {name for name, _ in tags.found}
    assert all(each["src"].startswith("data:image/") for each in tags.all("img"))
    assert not [a for _, attributes in tags.found for a in attributes if a.startswith("on")]
    (script,) = tags.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(each["content"] for each in tags.all("meta") if each.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "http" not in text.replace("http-equiv", "")


def test_what_files_say_is_text(folder):
    text = resegeo.report(folder)[0].read_text("utf-8")
    tags = Tags(text)
    assert EVIL in tags.text
    assert '"><img src=x onerror=alert(1)>' in tags.text
    assert "{} & <b>" in tags.text
    assert (len(tags.all("script")), len(tags.all("img")), len(tags.all("b"))) == (1, 4, 4)


def test_the_layers_show_classes_borders_and_confidence_pixel_by_pixel(folder):
    tags = Tags(resegeo.report(folder)[0].read_text("utf-8"))
    scene, classes, outlines, confidence = tags.all("img")
    with rasterio.open(folder / "a.classes.tif") as raster:
        codes, colours = raster.read(1), raster.colormap(1)
    factor = 200 // 96
    assert picture(scene).size == picture(outlines).size == (96 * factor, 96 * factor)
    shown = np.asarray(picture(classes).convert("RGBA"))
    assert (shown == np.array([colours[code] for code in codes.ravel()]).reshape(96, 96, 4)).all()
    lines = np.asarray(picture(outlines).convert("RGBA"))[..., 3] > 0
    large = codes.repeat(factor, 0).repeat(factor, 1)
    expected = np.zeros(large.shape, dtype=bool)
    expected[1:] |= np.diff(large.astype(int), axis=0) != 0
    expected[:, 1:] |= np.diff(large.astype(int), axis=1) != 0
    assert (lines == expected).all()
    assert expected.any()
    scores = np.asarray(scores_of(folder / "a.classes.tif")[:])
    tones = np.asarray(picture(confidence).convert("RGB"))
    assert len({tuple(tone) for tone in tones[(scores >= 180) & (scores <= 200)]}) <= 1


def test_a_page_that_somebody_edited_is_not_replaced(folder):
    html, summary, table = resegeo.report(folder)
    assert resegeo.report(folder) == (html, summary, table)
    for path in (html, summary, table):
        before = path.read_bytes()
        path.write_bytes(before.replace(b"forest", b"FOREST", 1))
        assert path.read_bytes() != before
        with pytest.raises(ResegeoError, match="is not as a report left it"):
            resegeo.report(folder)
        path.write_bytes(before)
    html.write_text("mine")
    with pytest.raises(ResegeoError, match="is not as a report left it"):
        resegeo.report(folder)
    assert resegeo.report(folder, overwrite=True)
    assert resegeo.report(folder)


def test_what_is_changed_missing_or_unprocessed_is_a_caution(folder):
    (folder / "a.areas.csv").unlink()
    (folder / "a.classes.qml").write_text("mine")
    document = json.loads((folder / "a.json").read_text("utf-8"))
    document["windows"]["failed"] = 2
    document["areas"].append({**document["areas"][0], "class_name": "unprocessed", "pixels": 500})
    (folder / "a.json").write_text(json.dumps(document))
    (folder / "a.areas.csv").write_text("gone")
    facts = json.loads(resegeo.report(folder)[1].read_text("utf-8"))
    assert facts["cautions"][0].startswith("The map is not complete: 2 windows")
    assert "a.classes.qml, a.areas.csv" in facts["cautions"][1]
    assert any("Nobody compared" in text for text in facts["cautions"])


def test_a_report_of_another_form_is_told(folder):
    document = json.loads((folder / "a.json").read_text("utf-8"))
    document["areas"] = [{"class": 1}]
    (folder / "a.json").write_text(json.dumps(document))
    with pytest.raises(ResegeoError, match="cannot be used"):
        resegeo.report(folder)


def test_without_a_store_the_page_has_classes_alone(folder):
    shutil.rmtree(folder / "a.store.zarr")
    document = json.loads((folder / "a.json").read_text("utf-8"))
    (folder / "a.json").write_text(json.dumps({**document, "store": None}))
    html, summary, _ = resegeo.report(folder)
    assert [each["alt"] for each in Tags(html.read_text("utf-8")).all("img")] == ["Classes", "Outlines"]
    assert json.loads(summary.read_text("utf-8"))["confidence"] is None


def test_an_evaluation_is_shown_with_its_figures_and_its_matrix(folder, tmp_path):
    with rasterio.open(folder / "a.classes.tif") as raster:
        codes, profile = raster.read(1), raster.profile
    codes[:40] = 2
    profile.update(driver="GTiff", nodata=None)
    write_raster(tmp_path / "truth.tif", codes[None], **profile)
    html, summary, table = resegeo.report(folder, truth=tmp_path / "truth.tif")
    found = evaluate([(folder / "a.classes.tif", tmp_path / "truth.tif")])
    assert json.loads(summary.read_text("utf-8"))["evaluation"] == json.loads(json.dumps(found.as_dict()))
    tags = Tags(html.read_text("utf-8"))
    assert f"{found.accuracy.mean_iou:.3f}" in tags.text
    right = np.asarray(picture(tags.all("img")[-1]).convert("RGBA"))
    with rasterio.open(folder / "a.classes.tif") as raster:
        same = raster.read(1) == codes
    assert (right[same] == (0x3D, 0x7A, 0xB5, 255)).all()
    assert (right[~same] == (0xC0, 0x39, 0x2B, 255)).all()
    assert same.mean() == pytest.approx(found.accuracy.overall)
    cells = [each.get("title") for each in tags.all("td") if each.get("title")]
    assert cells == [f"{count:,} pixels" for count in found.accuracy.counts.ravel()]
    with table.open(encoding="utf-8", newline="") as stream:
        assert {row["name"]: row["iou"] for row in csv.DictReader(stream)}["forest"] == str(found.accuracy.iou[1])


def test_a_batch_has_a_page_each_and_one_of_all(runs):
    together = json.loads((runs / "report.summary.json").read_text("utf-8"))
    assert [scene["page"] for scene in together["scenes"]] == ["./a/report.html", "./b/report.html"]
    tags = Tags((runs / "report.html").read_text("utf-8"))
    links = {each["href"] for each in tags.all("a")}
    assert links == {"./a/report.html", "./b/report.html"}
    assert all((runs / link).exists() for link in links)
    assert f"{2 * 96 * 96 / 100:.1f}" in tags.text
    assert resegeo.report(runs)[0] == runs / "report.html"


def test_a_batch_is_measured_by_a_folder_of_truths(runs, tmp_path):
    out = shutil.copytree(runs, tmp_path / "out")
    (tmp_path / "truth").mkdir()
    for name in ("a", "b"):
        shutil.copy(runs / name / f"{name}.classes.tif", tmp_path / f"truth/{name}.classes.tif")
    with rasterio.open(tmp_path / "truth/b.classes.tif", "r+", ignore_cog_layout_break="YES") as raster:
        codes = raster.read(1)
        raster.write(np.full_like(codes, 2), 1)
    written = resegeo.report(out, truth=tmp_path / "truth")
    together = json.loads(written[1].read_text("utf-8"))
    own = [scene["evaluation"]["overall_accuracy"] for scene in together["scenes"]]
    assert own == pytest.approx([1, (codes == 2).mean()])
    assert together["evaluation"]["overall_accuracy"] == pytest.approx(np.mean(own))
    assert "Right and wrong" in (out / "a/report.html").read_text("utf-8")
    assert f"mean IoU {together['scenes'][0]['evaluation']['mean_iou']:.2f}" in Tags(written[0].read_text("utf-8")).text
    with written[2].open(encoding="utf-8", newline="") as stream:
        assert {row["scene"] for row in csv.DictReader(stream) if row["iou"]} == {"a", "b"}
    with pytest.raises(ResegeoError, match="is no folder"):
        resegeo.report(out, truth=tmp_path / "truth/a.classes.tif")


def test_folders_of_any_name_are_linked_by_their_place_alone(runs, tmp_path):
    """A browser reads javascript: as a command, and # as the end of a path."""
    for name in ("javascript:alert(1)", "a#b?c%20d"):
        shutil.copytree(runs / "a", tmp_path / "many" / name)
    html = resegeo.report(tmp_path / "many")[0]
    links = [each["href"] for each in Tags(html.read_text("utf-8")).all("a")]
    assert set(links) == {"./javascript%3Aalert%281%29/report.html", "./a%23b%3Fc%2520d/report.html"}


def test_several_runs_in_a_folder_are_named_and_have_pages_of_their_own(folder):
    document = json.loads((folder / "a.json").read_text("utf-8"))
    shutil.copy(folder / "a.classes.tif", folder / "a.other.classes.tif")
    for kind in ("png", "areas.csv"):
        shutil.copy(folder / f"a.{kind}", folder / f"a.other.{kind}")
    text = json.dumps({**document, "outputs": ["a.classes.tif", "a.png", "a.areas.csv"]}).replace('"a.', '"a.other.')
    (folder / "a.other.json").write_text(text)
    with pytest.raises(ResegeoError, match=r"several runs; name one of the reports"):
        resegeo.report(folder)
    assert resegeo.report(folder / "a.other.json")[0] == folder / "a.other.report.html"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "holds no results"),
        ([".", "-o", "page.txt"], "must end in .html"),
        ([".", "--truth", "missing.tif"], "no such file"),
    ],
)
def test_a_mistake_is_answered_by_one_sentence(folder, monkeypatch, arguments, words):
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(main, ["report", *arguments])
    assert (result.exit_code, words in result.stderr, result.stderr.count("\n")) == (1, True, 1), result.stderr


@pytest.mark.slow
def test_a_browser_draws_the_page_and_obeys_no_class_name(folder, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium is installed")
    html = resegeo.report(folder)[0]
    shot = tmp_path / "shot.png"
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options = ["--window-size=1280,1600", "--hide-scrollbars"]
    subprocess.run(
        [*command, *options, f"--screenshot={shot}", html.as_uri()], check=True, timeout=120, capture_output=True
    )
    dom = subprocess.run([*command, "--dump-dom", html.as_uri()], check=True, timeout=120, capture_output=True)
    text = dom.stdout.decode("utf-8")
    assert "<title>a</title>" in text  # no class name took it
    assert "scale(1)" in text  # our own script ran, though the policy lets no other run
    drawn = np.asarray(Image.open(shot).convert("RGB")).reshape(-1, 3)
    with rasterio.open(folder / "a.classes.tif") as raster:
        codes, colours = raster.read(1), raster.colormap(1)
    swatches = {colours[code][:3] for code in np.unique(codes)}
    assert swatches <= {tuple(int(part) for part in colour) for colour in np.unique(drawn, axis=0)}


def test_the_page_has_no_text_that_a_later_run_would_change(folder):
    first = [path.read_bytes() for path in resegeo.report(folder)]
    assert [path.read_bytes() for path in resegeo.report(Path(folder))] == first
