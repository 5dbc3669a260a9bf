"""Languages and help pages: complete for every node, and served by a running ComfyUI."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
import requests
from comfy_api.latest import io
from comfy_copy import ROOT
from dpt_pack.nodes import DPTExtension

LOCALES = ROOT / "locales"
DOCS = ROOT / "nodes" / "web" / "docs"
LANGUAGES = ("en", "zh", "ja", "ko", "fr", "de", "es", "ru")
TRANSLATIONS = [language for language in LANGUAGES if language != "en"]
SCHEMAS = {
    node.define_schema().node_id: node.define_schema()
    for node in asyncio.run(DPTExtension().get_node_list())
}
NODES = sorted(SCHEMAS)


def described(schema: io.Schema) -> dict:
    """A schema's own texts, as the host's front end keys them."""
    texts: dict = {"display_name": schema.display_name, "description": schema.description}
    if schema.inputs:
        texts["inputs"] = {
            entry.id: {"name": entry.display_name or entry.id, "tooltip": entry.tooltip}
            for entry in schema.inputs
        }
    texts["outputs"] = {
        str(index): {"name": entry.display_name, "tooltip": entry.tooltip}
        for index, entry in enumerate(schema.outputs)
    }
    return texts


def load(language: str, name: str = "nodeDefs") -> dict:
    return json.loads((LOCALES / language / f"{name}.json").read_text(encoding="utf-8"))


def leaves(tree: dict, path: str = "") -> dict[str, str]:
    """Texts by dotted path."""
    found = {}
    for key, value in tree.items():
        place = f"{path}.{key}" if path else key
        found |= leaves(value, place) if isinstance(value, dict) else {place: value}
    return found


ENGLISH = leaves({name: described(schema) for name, schema in SCHEMAS.items()})


def test_languages():
    assert {folder.name for folder in LOCALES.iterdir()} == set(LANGUAGES)


def test_english_is_the_schemas_own():
    found = leaves(load("en"))
    assert found.keys() - ENGLISH.keys() == set(), "left over"
    assert {path: text for path, text in ENGLISH.items() if found.get(path) != text} == {}


@pytest.mark.parametrize("language", LANGUAGES)
def test_complete(language):
    found = leaves(load(language))
    assert ENGLISH.keys() - found.keys() == set(), "missing"
    assert found.keys() - ENGLISH.keys() == set(), "left over"
    everything = {**found, **leaves(load(language, "main"))}
    assert [path for path, text in everything.items() if not text.strip()] == []
    marked = [path for path, text in everything.items() if re.search(r"[{}@|]", text)]
    assert marked == [], "the front end would read these as message syntax"


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_translated(language):
    """Sentences are not left in English, and say the same numbers as the English ones."""
    found = leaves(load(language))
    sentences = [path for path in ENGLISH if path.endswith((".tooltip", ".description"))]
    assert [path for path in sentences if found[path] == ENGLISH[path]] == []
    numbers = {path: set(re.findall(r"\d+(?:\.\d+)?", ENGLISH[path])) for path in sentences}
    assert [path for path in sentences if any(n not in found[path] for n in numbers[path])] == []


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_choices_keep_their_names(language):
    """The front end shows choices as they are, so tooltips that explain them name them so."""
    found = leaves(load(language))
    for name, schema in SCHEMAS.items():
        for entry in schema.inputs:
            if isinstance(entry, io.Combo.Input) and entry.default is not None:
                tooltip = found[f"{name}.inputs.{entry.id}.tooltip"]
                assert [choice for choice in entry.options if choice not in tooltip] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_categories_and_types(language):
    categories = {part for schema in SCHEMAS.values() for part in schema.category.split("/")}
    ours = {
        entry.io_type
        for schema in SCHEMAS.values()
        for entry in (*schema.inputs, *schema.outputs)
        if entry.io_type.startswith("DPT_")
    }
    main = load(language, "main")
    assert main.keys() == {"nodeCategories", "dataTypes"}
    assert main["nodeCategories"].keys() == categories
    assert main["dataTypes"].keys() == ours


def test_help_pages_are_those_of_the_nodes():
    assert sorted(page.stem for page in DOCS.glob("*.md")) == NODES


@pytest.mark.parametrize("name", NODES)
def test_help_page(name):
    """Names the node, and exactly its inputs and outputs, in order; pictures exist."""
    schema, page = SCHEMAS[name], (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {schema.display_name}\n")
    sections = dict(part.split("\n", 1) for part in page.split("\n## ")[1:])
    assert {"Inputs", "Outputs", "When to use it", "If something goes wrong"} <= sections.keys()
    assert rows(sections["Inputs"]) == [entry.id for entry in schema.inputs]
    assert rows(sections["Outputs"]) == [entry.display_name for entry in schema.outputs]
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page):
        assert (DOCS / picture).is_file(), picture


def rows(section: str) -> list[str]:
    """What a section's table explains."""
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


@pytest.mark.parametrize("name", NODES)
def test_help_tells_the_defaults(name):
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    for entry in SCHEMAS[name].inputs:
        default = getattr(entry, "default", None)
        if default is not None:
            (told,) = re.findall(rf"^\| `{entry.id}` \|(.*?)\|", page, re.MULTILINE)
            begun, *rest = told.strip().split("…")  # a long list is told by how it begins
            assert str(default).startswith(begun) if rest else str(default) == begun


def test_served_languages(server):
    served = server.get("i18n")
    for language in LANGUAGES:
        assert served[language]["nodeDefs"] == load(language)
        assert load(language, "main").items() <= served[language].items()


@pytest.mark.parametrize("name", NODES)
def test_served_help(server, name):
    """Under the address the front end asks, and not as HTML, which it refuses."""
    pack = server.get(f"object_info/{name}")[name]["python_module"].split(".")[1]
    answer = requests.get(f"http://{server.address}/extensions/{pack}/docs/{name}.md", timeout=60)
    answer.raise_for_status()
    assert "html" not in answer.headers.get("content-type", "")
    assert answer.content == (DOCS / f"{name}.md").read_bytes()
