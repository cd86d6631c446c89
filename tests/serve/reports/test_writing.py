import dataclasses
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

from crossfake.detect.cli import detect
from crossfake.detect.metadata.display import claim_words
from crossfake.detect.metadata.results import Claim, Entry, Metadata
from crossfake.errors import MissingDependency, UserError
from crossfake.serve.reports.signing import blank_block, detached_jws, open_key, seal
from crossfake.serve.reports.writing import verify_report, write_report

from ..analyses import make_analysis

pytest.importorskip("cryptography")
pytest.importorskip("joserfc")
NAME = 'holiday – 写 <b>"été"</b> <!--block-->.jpg'


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "key.pem"


@pytest.fixture(scope="module")
def reports(key: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    return {fmt: write_report(make_analysis(NAME, faces=1), folder, fmt, key) for fmt in ("html", "pdf")}  # type: ignore[arg-type]


def _changed(path: Path, old: bytes, new: bytes, tmp_path: Path) -> Path:
    content = path.read_bytes()
    assert old in content and old != new
    out = tmp_path / f"changed{path.suffix}"
    out.write_bytes(content.replace(old, new, 1))
    return out


@pytest.mark.parametrize("fmt", ["html", "pdf"])
def test_round_trip(reports: dict[str, Path], key: Path, fmt: str) -> None:
    path = reports[fmt]
    assert re.fullmatch(rf"crossfake-[0-9a-f]{{12}}\.{fmt}", path.name)
    found = verify_report(path, key.with_suffix(".pub"))
    assert found.valid and found.status == "valid" and found.problem == ""
    said = found.payload["analysis"]
    assert said["name"] == NAME and said["sha256"] == "ab" * 32 and said["verdict"] == "fake"
    assert [each["hash"] for each in said["detectors"]] == ["c0ffee" * 10 + "beef"] * 2
    assert said["faces"][0]["per_detector"]["resnet18-0"]["probability"] == 0.93
    assert len(found.signer.split()) == 16


def test_html_shows_it_all_and_fetches_nothing(reports: dict[str, Path]) -> None:
    page = reports["html"].read_text()
    for words in (
        "Two detectors find signs",
        "about 93 in 100",
        "a score of 0.99 out of 1",
        "83 to 98 in 100",
        "Strongly compressed",
        "JPEG 70",
        "no face found",
        "not proof",
        "c0ffee",
        "ab" * 32,
        "crossfake 0.1.0",
        "2026-01-02T03:04:05",
        "dcgan",
        "too small",
        "never seen a diffusion model",
        "verify-report",
        "no sign of an edit",
    ):
        assert words in page, words
    assert "<b>&#34;" not in page and "&lt;b&gt;" in page
    assert not re.findall(r'(?:src|href)\s*=\s*"(?!data:)', page) and "url(" not in page
    assert page.count("<script") == 1 and 'type="application/json"' in page
    assert "100%" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize("fmt", ["html", "pdf"])
def test_every_tampering_is_found(reports: dict[str, Path], key: Path, fmt: str, tmp_path: Path) -> None:
    path, public = reports[fmt], key.with_suffix(".pub")
    content = path.read_bytes()
    signature = re.findall(rb'"signature":"([0-9a-f]{128})"', content)[0]
    swapped = signature[:-1] + (b"0" if signature[-1:] != b"0" else b"1")
    cases = {
        "payload": (b'"probability":0.93', b'"probability":0.13'),
        "hash of the file": (b"ab" * 32, b"ac" + b"ab" * 31),
        "signature": (signature, swapped),
    }
    if fmt == "html":
        cases["number"] = (b"about 93 in 100", b"about 13 in 100")
        cases["picture"] = (b"base64,/9j/4AAQ", b"base64,/9j/4AAR")
        cases["style"] = (b"</style>", b".main{display:none}</style>")
    else:
        stream = content.index(b"stream", content.index(b"/Image")) + 200
        cases["picture"] = (content[stream : stream + 40], bytes(40))
        cases["trailer"] = (b"%%EOF", b"%%EOF\n%")
    for name, (old, new) in cases.items():
        found = verify_report(_changed(path, old, new, tmp_path), public)
        assert found.status == "changed" and found.problem and not found.valid, name
    for place in range(0, len(content), len(content) // 60):
        broken = bytearray(content)
        broken[place] ^= 0x10
        (tmp_path / "flip").write_bytes(broken)
        assert verify_report(tmp_path / "flip", public).status == "changed", place


def test_a_key_in_the_file_is_not_trusted(
    reports: dict[str, Path], key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert verify_report(reports["html"]).status == "unknown signer"  # no key of one's own yet
    forged = write_report(make_analysis(NAME, faces=0), tmp_path, "html", tmp_path / "forger.pem")
    found = verify_report(forged, key.with_suffix(".pub"))
    assert found.status == "unknown signer" and not found.valid
    assert found.signer != verify_report(reports["html"], key.with_suffix(".pub")).signer
    own = write_report(make_analysis(faces=0), tmp_path)  # with the user's own key, made on the way
    assert verify_report(own).valid and verify_report(reports["html"]).status == "unknown signer"


def test_command(reports: dict[str, Path], key: Path, tmp_path: Path) -> None:
    def run(*args: str) -> tuple[int, str]:
        result = CliRunner().invoke(detect, ["verify-report", *args])
        return result.exit_code, result.output

    public = str(key.with_suffix(".pub"))
    code, text = run(str(reports["pdf"]), "--public-key", public)
    assert code == 0 and text.startswith("valid: ") and "ab" * 32 in text and "fake" in text
    code, text = run(str(_changed(reports["html"], b"0.93", b"0.03", tmp_path)), "--public-key", public)
    assert code == 1 and text.startswith("changed: ") and "verdict" not in text
    other = write_report(make_analysis("\x1b[31m.jpg", faces=0), tmp_path, "pdf", tmp_path / "other.pem")
    code, text = run(str(other), "--public-key", public)
    assert code == 1 and text.startswith("unknown signer: ") and "Compare the fingerprint" in text
    assert "\x1b" not in text
    (tmp_path / "x.html").write_text("<p>")
    for args, words in ((["x.html"], "no report"), (["missing.html"], "cannot read")):
        result = CliRunner().invoke(detect, ["verify-report", *(str(tmp_path / each) for each in args)])
        assert result.exit_code == 2 and words in result.output and result.output.count("\n") == 1


def test_video_whole_picture_and_no_face(tmp_path: Path, key: Path) -> None:
    for fmt in ("html", "pdf"):
        video = write_report(make_analysis("v.mp4", video=True), tmp_path / "v", fmt, key)  # type: ignore[arg-type]
        assert verify_report(video, key.with_suffix(".pub")).valid
    page = (tmp_path / "v").glob("*.html").__next__().read_text()
    assert "Person 1, 12 frames judged" in page and "over time" in page and "11.0 s" in page
    plain = make_analysis(faces=1)
    bare = dataclasses.replace(
        plain.faces[0], box=None, heatmap=None, spectrum=None, stability=(), nearest=(), warnings=()
    )
    whole = write_report(dataclasses.replace(plain, faces=(bare,), missed=()), tmp_path, "html", key)
    assert "The whole picture" in whole.read_text()
    assert "not judged" in write_report(make_analysis(faces=0), tmp_path, "html", key).read_text()


@pytest.mark.parametrize("fmt", ["html", "pdf"])
def test_the_seal_beside_is_checked_with_joserfc_alone(reports: dict[str, Path], key: Path, fmt: str) -> None:
    from joserfc import jws
    from joserfc.errors import BadSignatureError
    from joserfc.jwk import OKPKey

    document = reports[fmt].read_bytes()
    seal_beside = Path(f"{reports[fmt]}.jws").read_text()
    assert re.fullmatch(r"[\w-]+\.\.[\w-]+", seal_beside)
    public = OKPKey.import_key(key.with_suffix(".pub").read_bytes())
    found = jws.deserialize_compact(seal_beside, public, algorithms=["Ed25519"], payload=document)
    assert found.headers() == {"alg": "Ed25519", "kid": public.thumbprint()}  # RFC 7638
    with pytest.raises(BadSignatureError):
        jws.deserialize_compact(seal_beside, public, algorithms=["Ed25519"], payload=document + b" ")


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs OpenSSL")
def test_the_seal_beside_is_checked_with_openssl(reports: dict[str, Path], key: Path, tmp_path: Path) -> None:
    """The commands of docs/api.md."""
    docs = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    commands = docs.partition("With OpenSSL")[2].partition("```sh\n")[2].partition("```")[0]
    shutil.copy(reports["html"], tmp_path / "report.html")
    shutil.copy(f"{reports['html']}.jws", tmp_path / "report.html.jws")
    shutil.copy(key.with_suffix(".pub"), tmp_path / "sender.pub")

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", "-c", commands], cwd=tmp_path, capture_output=True, text=True)

    done = run()
    if "rawin" in done.stderr:
        pytest.skip("this OpenSSL knows no Ed25519")
    assert done.returncode == 0 and "Signature Verified Successfully" in done.stdout
    with open(tmp_path / "report.html", "ab") as file:
        file.write(b" ")
    assert "Verified Successfully" not in run().stdout


def test_a_seal_of_another_file_or_key_beside_a_report(
    reports: dict[str, Path], key: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    shutil.copy(reports["html"], report)
    beside = tmp_path / "report.html.jws"
    assert verify_report(report, key.with_suffix(".pub")).valid  # none: the one inside is enough
    good = Path(f"{reports['html']}.jws").read_text()
    other = detached_jws(report.read_bytes(), open_key(tmp_path / "other.pem"))
    for text in (
        Path(f"{reports['pdf']}.jws").read_text(),
        other,
        "",
        "a..b",
        good.replace("..", ".e30."),
        "é",
    ):
        beside.write_text(text)
        found = verify_report(report, key.with_suffix(".pub"))
        assert found.status == "changed" and "report.html.jws" in found.problem, text
    beside.write_text(f"{good}\n")
    assert verify_report(report, key.with_suffix(".pub")).valid


def test_what_a_file_says_of_itself_is_in_the_report(tmp_path: Path, key: Path) -> None:
    claim = Claim("ComfyUI", "text 'prompt'", model="m", prompt="a <script>alert(1)</script> cat")
    said = Metadata(
        "PNG", (claim,), camera="Canon <b>", exif=(Entry("Make", "Canon"),), notes=("XMP is broken.",)
    )
    analysis = dataclasses.replace(make_analysis(faces=0), metadata=said)
    analysis = dataclasses.replace(analysis, words=f"{claim_words(said)} It was not judged.")
    text = write_report(analysis, tmp_path, "html", key).read_text().partition("<script type=")[0]
    assert text.count(claim.sentence) == 2  # at the top and in its section, not again in the words
    assert text.index(claim.sentence) < text.index('class="verdict"')
    assert "<script>alert" not in text and "a &lt;script&gt;alert(1)" in text and "Canon &lt;b&gt;" in text
    assert "EXIF (1)" in text and "XMP is broken." in text
    pdf = write_report(analysis, tmp_path, "pdf", key)
    assert verify_report(pdf, key.with_suffix(".pub")).valid
    assert (
        verify_report(pdf, key.with_suffix(".pub")).payload["analysis"]["metadata"]["claims"][0]["model"]
        == "m"
    )


def test_a_pdf_fetches_nothing_and_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket
    import sys

    from crossfake.serve.reports.pdf import pdf

    monkeypatch.setattr(socket, "socket", None)
    made = pdf('<img src="http://127.0.0.1:9/a.png"><img src="file:///etc/hostname">words', "x.json", b"{}")
    assert made.startswith(b"%PDF") and b"/EmbeddedFile" in made and b"/Subtype /Image" not in made
    monkeypatch.delitem(sys.modules, "crossfake.serve.reports.pdf")
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(MissingDependency, match="weasyprint"):
        import_module("crossfake.serve.reports.pdf")


def test_mistakes(tmp_path: Path, key: Path) -> None:
    with pytest.raises(UserError, match="no report as 'docx'"):
        write_report(make_analysis(faces=0), tmp_path, "docx", key)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_report(make_analysis(faces=0), tmp_path / "file", "html", key)


@pytest.mark.parametrize(
    "analysis", [None, {}, {"sha256": "\x1b[2Jvalid", "verdict": "\rvalid: as it was signed"}]
)
def test_what_a_stranger_signed_cannot_steer_the_terminal(
    analysis: object, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    stranger = open_key(tmp_path / "stranger.pem")
    block = blank_block({"analysis": analysis} if analysis else {}, stranger)
    path = tmp_path / "a.html"
    path.write_bytes(seal(b"<p>" + block, block, stranger))
    key_option = ["--public-key", str(key.with_suffix(".pub"))]
    open_key(key)
    said = CliRunner().invoke(detect, ["verify-report", str(path), *key_option], color=True)
    assert said.exit_code == 1 and isinstance(said.exception, SystemExit)
    rest = said.output.partition("signer:")[2]
    assert "\x1b" not in rest and "\r" not in rest


def test_a_pdf_leaves_cut_pictures_unreadable() -> None:
    """WeasyPrint would have Pillow fill them with grey, and a detector judge the grey."""
    from PIL import ImageFile

    pytest.importorskip("weasyprint")
    import crossfake.serve.reports.pdf  # noqa: F401

    assert not ImageFile.LOAD_TRUNCATED_IMAGES
