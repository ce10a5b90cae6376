"""The report page in a real browser: nothing to complain about, everything drawn, nothing asked of the network."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from labeled_sets import labeled_shards, results
from reports import report
from sbtrain.cli import main

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
#: What the page looks like once it is drawn, put where the dumped document shows it.
LOOK = """<script>addEventListener("load", () => {
  const sizes = [...document.querySelectorAll("figure svg, figure img")].map((e) => e.getBoundingClientRect());
  const images = [...document.images].map((e) => e.naturalWidth);
  const page = document.documentElement;
  document.body.dataset.look = JSON.stringify({
    figures: sizes.length, empty: sizes.filter((s) => s.width < 50 || s.height < 20).length, images,
    tables: document.querySelectorAll("table").length, width: innerWidth, wide: page.scrollWidth - page.clientWidth,
    paper: getComputedStyle(document.body).backgroundColor,
  });
});</script>"""

FRAME = """<!doctype html><body><iframe width="{width}" height="3000" srcdoc="{page}"></iframe><script>
addEventListener("load", () => {{ document.body.dataset.look = frames[0].document.body.dataset.look; }});
</script></body>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        said = f"no browser: none of {', '.join(BROWSERS)} is there (apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)
    return found


@pytest.fixture(scope="module")
def page(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page with everything that a report can show, as the commands themselves leave it."""
    folder = tmp_path_factory.mktemp("page")
    run_dir = shutil.copytree(undisturbed, folder / "run")
    shards = labeled_shards(folder / "shards") / "lab"
    results(run_dir, shards, freeze=True)
    for words in (
        "probe --layers conv1,conv4 --draws 2 --epochs 1 --min-steps 2 --compare",
        "features --layer conv4 --pool 1",
        "reconstruct --images 3",
    ):
        command, *options = words.split()
        done = CliRunner().invoke(main, [command, "--run", str(run_dir), "--shards", str(shards), *options])
        assert done.exit_code == 0, done.output
    return report(run_dir, out=folder / "page.html")[0].page


def test_what_the_commands_leave_is_on_the_page(page: Path) -> None:
    text = page.read_text()

    for anchor in ("published", "few-shot", "layers", "reconstructions", "confusion", "map", "training", "speed"):
        assert f'aria-labelledby="{anchor}"' in text
    assert "conv4" in text
    assert "images of val" in text


def opened(browser: str, page: Path, profile: Path, *options: str) -> tuple[str, list[str]]:
    """Return the document as it is once loaded, and what the console says."""
    command = [
        browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
        "--v=0", f"--user-data-dir={profile}", "--no-first-run", "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND", *options, "--dump-dom", page.resolve().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def looked(browser: str, page: Path, profile: Path, *options: str, width: int = 1200) -> dict[str, object]:
    """Return what `LOOK` sees on the page, which for this alone may run a script."""
    text, policies = POLICY.subn("", page.read_text())
    assert policies == 1
    copy = page.with_name("looked.html")
    # In a frame of that width: the browser's own window is never as narrow as a phone.
    inside = html.escape(text.replace("</body>", f"{LOOK}</body>"))
    copy.write_text(FRAME.format(width=width, page=inside))
    document, console = opened(browser, copy, profile, *options)
    assert console == []
    found: dict[str, object] = json.loads(html.unescape(re.findall(r'data-look="([^"]*)"', document)[0]))
    return found


def test_the_page_opens_without_a_complaint_and_asks_for_nothing(browser: str, page: Path, tmp_path: Path) -> None:
    document, console = opened(browser, page, tmp_path)

    # Its policy forbids every request, and a request that is forbidden is an error in the console.
    assert console == []
    assert POLICY.search(document)
    assert document.count("<table>") == page.read_text().count("<table>")


def test_the_check_for_requests_can_fail(browser: str, page: Path, tmp_path: Path) -> None:
    bad = page.with_name("bad.html")
    bad.write_text(page.read_text().replace("</h1>", '</h1><img src="https://example.com/x.png" alt="">'))

    assert "example.com/x.png" in opened(browser, bad, tmp_path)[1][0]


def test_tables_and_pictures_are_drawn_on_a_phone_in_the_dark(browser: str, page: Path, tmp_path: Path) -> None:
    found = looked(browser, page, tmp_path, "--blink-settings=preferredColorScheme=0", width=390)

    text = page.read_text()
    assert found["figures"] == text.count("<svg") + text.count("<img")
    assert found["tables"] == text.count("<table>")
    assert found["empty"] == 0
    assert len(found["images"]) == text.count("<img") == 1  # type: ignore[arg-type]
    assert min(found["images"]) > 100  # type: ignore[call-overload]
    assert found["width"] <= 400
    assert found["wide"] == 0
    assert found["paper"] == "rgb(20, 22, 26)"
