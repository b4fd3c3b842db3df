"""Images signed by C2PA's own library: the bytes that a run keeps validate as those that the server sent."""

from __future__ import annotations

import base64
import datetime
import io
import json
from pathlib import Path

import pytest
from c2pa import Builder, C2paError, C2paSignerInfo, C2paSigningAlg, Reader, Signer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image
from support.fault_server import FaultServer, reply

from pleinair.app.api import draw

TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
MANIFEST = {
    "claim_generator_info": [{"name": "a hosted model", "version": "1"}],
    "assertions": [
        {
            "label": "c2pa.actions",
            "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE}]},
        }
    ],
}


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, is_ca: bool
) -> x509.Certificate:
    """Return a certificate as C2PA wants them, of an authority or of a signer."""
    now = datetime.datetime.now(datetime.UTC)
    usage = {
        "digital_signature": not is_ca, "content_commitment": False, "key_encipherment": False,
        "data_encipherment": False, "key_agreement": False, "key_cert_sign": is_ca, "crl_sign": is_ca,
        "encipher_only": False, "decipher_only": False,
    }  # fmt: skip

    def named(text: str) -> x509.Name:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text), organisation])

    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if not is_ca:
        email = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(email, critical=False)
    return builder.sign(signer, hashes.SHA256())


@pytest.fixture(scope="module")
def signer() -> Signer:
    """Return a signer whose certificate an authority of this test has issued."""
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = (
        certificate("signer", key, "authority", authority, is_ca=False),
        certificate("authority", authority, "authority", authority, is_ca=True),
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificates = b"".join(each.public_bytes(pem) for each in chain)
    return Signer.from_info(C2paSignerInfo(C2paSigningAlg.ES256, certificates, private, None))


def signed(kind: str, signer: Signer) -> bytes:
    """Return an image as a file of a kind, signed."""
    plain, file = io.BytesIO(), io.BytesIO()
    Image.radial_gradient("L").convert("RGB").resize((64, 64)).save(plain, kind)
    plain.seek(0)
    with Builder(json.dumps(MANIFEST)) as builder:
        builder.sign(signer, TYPES[kind], plain, file)
    return file.getvalue()


@pytest.mark.parametrize("kind", TYPES)
def test_the_kept_bytes_are_valid_for_c2pas_reader(
    kind: str, signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.chdir(tmp_path)
    server, data = FaultServer(), signed(kind, signer)
    server.acts = [reply(200, {"created": 1, "data": [{"b64_json": base64.b64encode(data).decode()}]})]
    generator = {
        "backend": "openai_images", "model": "m", "base_url": server.url, "slots": 0,
        "height": 64, "width": 64, "price_per_picture": 0.0,
    }  # fmt: skip
    try:
        result = draw(
            "a barn owl", graph="direct", out=str(tmp_path / "out"), overrides={"generator": generator}
        )
    finally:
        server.close()
    assert result.original is not None and result.picture is not None
    assert result.original.read_bytes() == data
    with Reader(TYPES[kind], io.BytesIO(result.original.read_bytes())) as reader:
        report = json.loads(reader.json())
    assert report["validation_state"] == "Valid", report.get("validation_status")
    assert SOURCE_TYPE in json.dumps(report)
    with pytest.raises(C2paError):
        Reader("image/png", io.BytesIO(result.picture.read_bytes()))
    with Image.open(result.picture) as ours, Image.open(io.BytesIO(data)) as theirs:
        assert ours.tobytes() == theirs.convert("RGB").tobytes()
