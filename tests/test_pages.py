"""The pages are true to the code: their links, paths, commands, settings and Python examples."""

import ast
import re
import shlex
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from runs import ROOT

from mbv2det.cli import main
from mbv2det.cli.config_files import shipped_configs
from mbv2det.cli.settings import SettingsParser
from mbv2det.cli.study import studies

FOLDERS = ("configs", "mbv2det", "tests", "tools")
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        ROOT / "data/README.md",
        *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md")),
    ]
)
MAX_README_LINES = 120
MAX_PROSE_LENGTH = 120
PLACEHOLDERS = ("CONFIG", "NAME", "tiny.yaml")  # the last is beside the page that names it
# Settings of any task, tensors, and a file of YOLO.
NO_SETTING = re.compile(r"heads\.(TASK|classification)\.|data\.yaml$")
SECTIONS = ("augment", "backbone", "data", "eval", "heads", "optim", "trainer")
# Packages of examples that no extra of the development environment installs.
OPTIONAL = {"sahi": "sahi", "trackers": "trackers", "mbv2det.deploy.sahi_model": "sahi"}


def name_of(page):
    return page.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@dataclass(frozen=True)
class Block:
    """A fenced or indented block of code: its language, empty if indented, and its text."""

    language: str
    text: str


def split(page):
    """Lines of prose, and blocks of code, of a page."""
    prose, blocks, language, code = [], [], None, []
    for line in [*page.read_text().splitlines(), ""]:
        fence = line.startswith("```")
        if language is None and fence:
            language = line.removeprefix("```") or "text"
        elif language is None and line.startswith("    "):
            language, code = "", [line[4:]]
        elif language and not fence:
            code.append(line)
        elif language == "" and (line.startswith("    ") or not line):
            code.append(line[4:])
        elif language is None:
            prose.append(line)
        else:
            blocks.append(Block(language, "\n".join(code)))
            language, code = None, []
            if not fence:
                prose.append(line)
    if language is not None:
        blocks.append(Block(language, "\n".join(code)))
    return prose, blocks


def anchors(page):
    """Anchors of a page's headings, as GitHub names them."""
    headings = [line.lstrip("#").strip() for line in split(page)[0] if line.startswith("#")]
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {word.replace(" ", "-") for word in words}


def commands(page):
    """The commands of a page's blocks, as lists of words; a backslash continues a line."""
    lines = "\n".join(block.text for block in split(page)[1] if block.language != "python")
    lines = re.sub(r"\\\n\s*", "", lines).splitlines()
    lines = [line for line in lines if re.match(r"mbv2det [a-z]|python tools/", line)]
    # Brackets after a space enclose what may be left out.
    return [shlex.split(re.sub(r" \[[^\]]*\]", "", line), comments=True) for line in lines]


def settings_command(words):
    """Configuration and settings of `train`, `eval` or a study; None for another command."""
    name, *arguments = words[1:]
    name = Path(name).stem
    if name == "study":
        name, *arguments = arguments
    if name not in ("train", "eval", "joint_cost", "bottlenecks", "peer_ssdlite", "peer_deeplabv3"):
        return None
    return arguments


@pytest.fixture
def known_commands(capsys, monkeypatch):
    """Names of the commands, as the console script lists them."""
    monkeypatch.setattr("sys.argv", ["mbv2det", "--help"])
    main.main()
    return set(re.findall(r"^  (\w+)", capsys.readouterr().out, re.MULTILINE))


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_README_LINES


@each_page
def test_prose_has_lines_of_readable_length(page):
    long = [line for line in split(page)[0] if len(line) > MAX_PROSE_LENGTH and line[0] != "|"]
    assert long == []


@each_page
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", "\n".join(split(page)[0]))
    for link in links:
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_page
def test_paths_of_the_repository_exist(page):
    spans = re.findall(r"`([^`]+)`", "\n".join(split(page)[0]))
    paths = [span for span in spans if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./-]*", span)]
    assert [path for path in paths if "NAME" not in path and not (ROOT / path).exists()] == []


def test_the_tree_of_the_readme_is_that_of_the_repository():
    (tree,) = [b.text for b in split(ROOT / "README.md")[1] if b.text.startswith("mbv2det/\n")]
    package, _, rest = tree.partition("\nconfigs/")
    named = set(re.findall(r"[\w]+(?:\.py|/)", package)) - {"mbv2det/"}
    files = {path.name for path in (ROOT / "mbv2det").glob("[!_]*.py")}
    folders = {f"{path.parent.name}/" for path in (ROOT / "mbv2det").glob("*/__init__.py")}
    assert named == files | folders
    folders = {f"{path.name}/" for path in (*ROOT.iterdir(), ROOT / "tools/studies")}
    assert set(re.findall(r"\w+/", rest)) <= folders


@each_page
def test_commands_exist(page, known_commands):
    spans = re.findall(r"`mbv2det ([a-z_]+)", "\n".join(split(page)[0]))
    named = [words for words in commands(page) if words[0] == "mbv2det"]
    assert {*spans, *(words[1] for words in named)} <= known_commands
    named_studies = {words[2] for words in named if words[1] == "study"} - {"NAME"}
    assert named_studies <= set(studies())
    scripts = [words[1] for words in commands(page) if words[0] == "python"]
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


@each_page
def test_commands_name_shipped_configurations_and_existing_settings(page):
    for words in commands(page):
        config, *settings = settings_command(words) or [PLACEHOLDERS[0]]
        if config in PLACEHOLDERS:
            continue
        assert Path(config).stem in shipped_configs(), words
        parser = SettingsParser("")
        for option in ("out", "report", "resume", "rounds", "seeds"):  # of the commands themselves
            parser.add_option(option)
        parser.parse([Path(config).stem, *settings])


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=name_of)
def test_settings_exist(page):
    spans = re.findall(r"`(?:--)?([a-z]+(?:\.\w+)+)(?:=[^`\s]*)?`", "\n".join(split(page)[0]))
    named = [span for span in spans if span.partition(".")[0] in SECTIONS]
    settings = SettingsParser("").parse(["joint_shapes"]).namespace  # has both heads
    assert [key for key in named if key not in settings and not NO_SETTING.match(key)] == []


@each_page
def test_python_examples_compile_and_import_what_exists(page):
    blocks = [block.text for block in split(page)[1] if block.language == "python"]
    for tree in map(ast.parse, blocks):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and importable(node.module):
                module = import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    assert not importable(alias.name) or import_module(alias.name)


def importable(module):
    """Returns whether a module has to exist here: the packages of some extras may be absent."""
    package = OPTIONAL.get(module) or OPTIONAL.get(module.partition(".")[0])
    return package is None or find_spec(package) is not None


def test_a_page_is_split_into_prose_and_commands(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n\nProse.\n\n    mbv2det train a \\\n        --b=[1,2]  # why\n\n"
        "    mbv2det eval c [--d=1]\n\nMore.\n```python\nx = 1\n```\nEnd.\n\n    python tools/e.py"
    )
    prose, blocks = split(page)
    assert [line for line in prose if line] == ["# A page", "Prose.", "More.", "End."]
    assert [block.language for block in blocks] == ["", "python", ""]
    assert commands(page) == [
        ["mbv2det", "train", "a", "--b=[1,2]"],
        ["mbv2det", "eval", "c"],
        ["python", "tools/e.py"],
    ]
