"""Everything that the documentation names exists: links, paths, keys, and every command down to its flags."""

import ast
import inspect
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from snakemake.cli import get_argument_parser

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((REPOSITORY / "docs").glob("*.md"))
CHANGELOG = REPOSITORY / "CHANGELOG.md"  # may name what no longer exists

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PLACEHOLDER = re.compile(r"<[^<>]+>|…")  # eval_<option>_<task>.json
WILDCARD = re.compile(r"\{\w+\}")
MADE = ("results", "runs", "logs", "benchmarks/out")  # folders that a run makes
FILES = {".json", ".txt", ".yaml", ".parquet"}  # suffixes of files; anything else after a dot is part of a key
COMMANDS = ("make", "snakemake", "python")


def per_page(check):
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)(check)


# ---- what a page says -----------------------------------------------------------------------------------------------


def prose(page):
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def spans(page):
    """What the prose has in backticks, line breaks as spaces."""
    return [" ".join(span.split()) for span in SPAN.findall(prose(page))]


def commands(page):
    """Every command as words: from the lines of fenced blocks, from the prose, and from inside `$(…)`."""
    blocks = (block for language, block in FENCE.findall(page.read_text()) if not language)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += spans(page)
    lines += [inner for line in lines for inner in re.findall(r"\$\((python [^()]+)\)", line)]
    lines = [line.strip().removeprefix("$ ") for line in lines]
    known = (line for line in lines if line.split(" ")[0] in COMMANDS and not PLACEHOLDER.search(line))
    return [shlex.split(line, comments=True) for line in known]


def commands_of(program):
    return [
        pytest.param(words, id=f"{page.name}: {shlex.join(words)[:70]}")
        for page in PAGES
        for words in commands(page)
        if words[0] == program
    ]


# ---- links and paths ------------------------------------------------------------------------------------------------


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.M)
    kept = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


def test_the_readme_links_to_every_page():
    linked = {(REPOSITORY / link.partition("#")[0]).resolve() for link in LINK.findall(prose(PAGES[0]))}
    assert {*PAGES[1:], CHANGELOG} <= linked


def is_path(span):
    top = {path.name for path in REPOSITORY.iterdir()} | {"results", "runs", "logs"}
    return " " not in span and "/" in span and not span.startswith("/") and span.split("/")[0] in top


@pytest.fixture(scope="module")
def artifacts():
    """Patterns of everything that a run makes, `results/eval_{option}_{task}.json`, as `paths` defines them."""
    from world_modality.experiment import paths

    named = [value for value in vars(paths).values() if isinstance(value, str) and value.startswith("results/")]
    functions = [value for value in vars(paths).values() if inspect.isfunction(value)]
    named += [function() for function in functions if all(has_default(p) for p in parameters(function))]
    return named + re.findall(r"results/\w+\.svg", (REPOSITORY / "Makefile").read_text())


def parameters(function):
    return inspect.signature(function).parameters.values()


def has_default(parameter):
    return parameter.default is not parameter.empty


def is_made(path, patterns):
    """Whether a run makes the path, as an artifact, a folder above one, or a file in one."""
    if not path.startswith("results"):
        return path.split("/")[0] != "logs" or is_log(path)
    named = PLACEHOLDER.sub("x", path).rstrip("/")
    for pattern in patterns:
        parts = pattern.split("/")
        whole = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        if any(re.fullmatch(as_regex(part), named) for part in whole) or re.match(as_regex(pattern) + "/", named):
            return True
    return "…" in path and is_made(path.partition("…")[0].rstrip("/"), patterns)


def as_regex(pattern):
    return "[^/]+".join(re.escape(literal) for literal in WILDCARD.split(pattern))


def is_log(path):
    name = path.split("/")[1]
    return name in {"", "slurm", "setup.log"} or name.removesuffix(".log") in rules()


@per_page
def test_every_path_exists_or_is_one_that_a_run_makes(page, request):
    for span in filter(is_path, spans(page)):
        if span.startswith(MADE):
            assert is_made(span, request.getfixturevalue("artifacts")), span
        else:
            assert list(REPOSITORY.glob(PLACEHOLDER.sub("*", span).rstrip("/"))), span


def keys(section, prefix=()):
    for name, value in section.items():
        yield ".".join([*prefix, name])
        if isinstance(value, dict):
            yield from keys(value, [*prefix, name])


@per_page
def test_every_key_of_the_config_exists(page):
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    sections = {name for name, value in config.items() if isinstance(value, dict)} - {"options"}
    dotted = {span.partition(":")[0] for span in spans(page) if re.match(r"[a-z_]+(\.[a-z_]+)+(:|$)", span)}
    named = {key for key in dotted if key.split(".")[0] in sections and Path(key).suffix not in FILES}
    assert named <= set(keys(config))


# ---- commands -------------------------------------------------------------------------------------------------------


def rules():
    files = [REPOSITORY / "Snakefile", *(REPOSITORY / "rules").glob("*.smk")]
    return {name for file in files for name in re.findall(r"^\s*(?:rule|checkpoint) (\w+):", file.read_text(), re.M)}


def check_config_file(path):
    """A path with a folder is in the repository; a bare name stands for a file of the reader's own."""
    assert "/" not in str(path) or (REPOSITORY / path).is_file(), path


@pytest.mark.parametrize("words", commands_of("make"))
def test_make_knows_its_target_and_variables(words):
    makefile = (REPOSITORY / "Makefile").read_text()
    for word in words[1:]:
        name, is_variable, _ = word.partition("=")
        known = f"$({name})" in makefile if is_variable else re.search(rf"^{re.escape(name)}:", makefile, re.M)
        assert known, word


@pytest.fixture(scope="module")
def snakemake_parser():
    return get_argument_parser()


@pytest.mark.parametrize("words", commands_of("snakemake"))
def test_snakemake_takes_its_flags_targets_and_files(words, snakemake_parser, request):
    arguments = snakemake_parser.parse_args(words[1:])  # ends the test if it refuses a flag
    for target in arguments.targets:
        known = target.startswith("results/") and is_made(target, request.getfixturevalue("artifacts"))
        assert known or target in rules(), target
    for file in arguments.configfile or []:
        check_config_file(file)
    for profile in filter(None, [arguments.profile] if isinstance(arguments.profile, str) else arguments.profile or []):
        assert (REPOSITORY / profile / "config.yaml").is_file(), profile
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    for key, _, value in (item.partition("=") for item in arguments.config or []):
        assert set(yaml.safe_load(value)) <= set(config[key]), f"{key}={value}"


def program_of(words):
    """The file that a python command runs, and its arguments."""
    if words[1] == "-m":
        return REPOSITORY / (words[2].replace(".", "/") + ".py"), words[3:]
    return REPOSITORY / words[1], words[2:]


def flags_of(program):
    """The flags that a program declares, without importing it."""
    calls = [node for node in ast.walk(ast.parse(program.read_text())) if isinstance(node, ast.Call)]
    declared = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"]
    named = {arg.value for call in declared for arg in call.args if isinstance(arg, ast.Constant)}
    return {name for name in named if name.startswith("-")} | {"--help", "-h"}


@pytest.mark.parametrize("words", commands_of("python"))
def test_a_program_exists_and_takes_its_flags(words):
    if words[1:3] == ["-m", "pytest"]:
        assert all((REPOSITORY / word).exists() for word in words[3:] if not word.startswith("-"))
        return
    program, arguments = program_of(words)
    assert program.is_file(), program
    assert {word for word in arguments if re.match("--?[a-z]", word)} <= flags_of(program), shlex.join(words)
    if "--configfile" in arguments:
        check_config_file(arguments[arguments.index("--configfile") + 1])


def test_the_policy_flags_shown_for_lerobot_are_those_of_the_plugin():
    shown = set(re.findall(r"--policy\.(world_\w+)", (REPOSITORY / "docs" / "by_hand.md").read_text()))
    source = REPOSITORY / "lerobot_policy_world_modality" / "configuration_smolvla_world.py"
    fields = [node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.AnnAssign)]
    assert shown
    assert shown <= {field.target.id for field in fields}


# ---- sizes and versions ---------------------------------------------------------------------------------------------


def test_the_readme_is_read_in_five_minutes():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 180


@pytest.fixture
def version():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]


def test_the_changelog_has_the_version_and_what_is_not_released(version):
    headings = re.findall(r"^## \[([^\]]+)\]", CHANGELOG.read_text(), re.M)
    assert headings[:2] == ["Unreleased", version]


def test_the_citation_is_complete_and_of_this_version(version):
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == version
    assert citation["license"] == tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["license"]
