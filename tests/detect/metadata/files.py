"""Files that say something of themselves, made here."""

import datetime
import io
import json
import struct
import zlib
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

from crossfake.datasets.toyfaces import toyface

SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {"seed": 5, "steps": 20, "positive": ["8", 0], "negative": ["7", 0]},
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl.safetensors"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a dog", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "bad", "clip": ["4", 1]}},
    "8": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["6", 0]}},
}
PARAMETERS = (
    "a <b>cat</b>, sitting\nNegative prompt: dog, worst quality\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: abc, Model: v1-5-pruned"
)


def picture(number: int = 0, side: int = 64) -> Image.Image:
    return Image.fromarray(toyface(number, side))


def saved(image: Image.Image, fmt: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def png(**texts: str) -> bytes:
    """A PNG with these texts."""
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text) if not text.isascii() else info.add_text(key, text)
    return saved(picture(), "PNG", pnginfo=info)


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)


def with_chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG with a chunk before its pixels."""
    content = png()
    return content[:33] + chunk(kind, body) + content[33:]


def camera_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Canon", "Canon EOS 5D"
    exif[ExifTags.Base.Software], exif[ExifTags.Base.DateTime] = "Photo Editor 2", "2024:05:06 10:00:00"
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.DateTimeOriginal], inner[ExifTags.Base.OffsetTimeOriginal] = (
        "2024:05:01 09:00:00",
        "+02:00",
    )
    place = exif.get_ifd(ExifTags.IFD.GPSInfo)
    place[1], place[2], place[3], place[4] = "S", (33.0, 51.0, 36.0), "E", (151.0, 12.0, 0.0)
    return exif


def with_thumbnail(whole: Image.Image, small: Image.Image) -> bytes:
    """A JPEG whose EXIF holds another JPEG, laid out by hand: TIFF header, an empty directory, and the second one."""
    thumbnail = saved(small, "JPEG", quality=80)
    entries = ((0x0201, 8 + 6 + 2 + 2 * 12 + 4), (0x0202, len(thumbnail)))
    listed = (struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    second = b"\x02\x00" + b"".join(listed) + bytes(4)
    first = b"\x00\x00" + (14).to_bytes(4, "little")
    exif = b"Exif\0\0II*\0\x08\x00\x00\x00" + first + second + thumbnail
    return saved(whole, "JPEG", exif=exif, quality=90)


def xmp(**properties: str) -> bytes:
    """A packet; ``prefix__name`` is ``prefix:name``."""
    spaces = {
        "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
        "xmp": "http://ns.adobe.com/xap/1.0/",
        "photoshop": "http://ns.adobe.com/photoshop/1.0/",
        "dcterms": "http://purl.org/dc/terms/",
        "TC260": "http://www.tc260.org.cn/ns/AIGC/1.0/",
    }
    named = " ".join(f'xmlns:{prefix}="{address}"' for prefix, address in spaces.items())
    values = "".join(f"<{k.replace('__', ':')}>{v}</{k.replace('__', ':')}>" for k, v in properties.items())
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {named}>{values}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


class Signer:
    """A certificate authority of one day, and a signer that it vouches for."""

    def __init__(self, name: str = "Example Newsroom") -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        def named(common: str) -> x509.Name:
            pairs = ((NameOID.ORGANIZATION_NAME, name), (NameOID.COMMON_NAME, common))
            return x509.Name([x509.NameAttribute(kind, text) for kind, text in pairs])

        root, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)

        def certificate(subject: str, key: Any, ca: bool) -> Any:
            made = x509.CertificateBuilder().subject_name(named(subject)).issuer_name(named("Root"))
            made = made.public_key(key.public_key()).serial_number(x509.random_serial_number())
            made = made.not_valid_before(now - datetime.timedelta(1)).not_valid_after(
                now + datetime.timedelta(9)
            )
            usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
            made = made.add_extension(x509.BasicConstraints(ca, None), True).add_extension(usage, True)
            authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())
            made = made.add_extension(authority, False)
            made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            if not ca:
                made = made.add_extension(
                    x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False
                )
            return made.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

        self.anchors = certificate("Root", root, True)
        self.chain = certificate("Photo Desk", own, False) + self.anchors
        self.key = own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(
        self, content: bytes, mime: str = "image/jpeg", source: str = "trainedAlgorithmicMedia"
    ) -> bytes:
        import c2pa

        info = c2pa.C2paSignerInfo(alg=b"es256", sign_cert=self.chain, private_key=self.key, ta_url=None)
        action = {"action": "c2pa.created", "digitalSourceType": SOURCE + source}
        manifest = {
            "claim_generator_info": [{"name": "Toy Generator", "version": "2"}],
            "title": "toy",
            "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
        }
        out = io.BytesIO()
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest)) as builder:
            builder.sign(signer, mime, io.BytesIO(content), out)
        return out.getvalue()


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8))
