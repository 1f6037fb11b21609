"""What of a working directory travels to a cluster."""

import pytest

from rayseg.on_ray import parcel
from rayseg.on_ray.parcel import EXCLUDES, pack

SECRET = [
    ".env", ".env.local", ".aws/credentials", ".ssh/config", ".netrc", ".kube/config",
    ".docker/config.json", "tls/server.pem", "tls/SERVER.PEM", "tls/server.key", "id_rsa",
    "keys/id_ed25519.pub", "hf_token", "api_token.txt", "deep/er/.env", "credentials.json",
    ".git-credentials", ".ray/auth_token", "service-account-1.json", ".config/gcloud/x.db",
    ".streamlit/secrets.toml", "secrets.json", "secret.yaml", "password.txt", "Passwords.csv",
    "key.json", "gcp-key.json", "api_key.txt", "rootkey.csv", "accessKeys.csv", "HF_TOKEN",
    "new_user_credentials.csv", "Token.json", "prod.env", "rclone.conf", ".databrickscfg",
    "kubeconfig", "terraform.tfvars", "terraform.tfstate", "auth.json", "config.p8", "x.gpg",
    "wandb.netrc", ".bash_history",
]  # fmt: skip
IMAGE = ["a.jpg", "sub/b.PNG", "c.jpeg", "d.tif", "e.webp", "f.HEIC", "g.jp2", "h.avif"]
CODE = [
    "rayseg/cli.py", "tokenizer.py", "rayseg/config/secrets.py", "run.toml", "keys.py",
    "labels.json", "monkey.csv", "secretary.py", "passage.txt", "keyboard.json",
]  # fmt: skip


def lay(folder, names, size=1):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)


def test_code_travels_and_neither_secrets_nor_images_do(tmp_path):
    lay(tmp_path, [*SECRET, *IMAGE, *CODE])
    assert sorted(pack(str(tmp_path)).sizes) == sorted(CODE)


def test_ray_packs_what_is_said_and_nothing_else(tmp_path):
    from zipfile import ZipFile

    from ray._private.runtime_env.packaging import create_package

    lay(tmp_path / "w", [*SECRET, *IMAGE, *CODE, "a b/[c]!.py"])
    lay(tmp_path, ["outside/key.txt"])
    (tmp_path / "w/out").symlink_to(tmp_path / "outside")
    (tmp_path / "w/a b/[o]ut.txt").symlink_to(tmp_path / "outside/key.txt")
    (tmp_path / "w/plain.txt").symlink_to(tmp_path / "w/.env")
    (tmp_path / "w/inner.txt").symlink_to(tmp_path / "w/.aws/credentials")
    (tmp_path / "w/again.py").symlink_to(tmp_path / "w/keys.py")
    (tmp_path / "w/.gitignore").write_text("run.toml\n")
    made = pack(str(tmp_path / "w"))
    create_package(
        str(tmp_path / "w"), tmp_path / "p.zip", include_gitignore=True,
        excludes=list(made.excludes),
    )  # fmt: skip
    packed = {name for name in ZipFile(tmp_path / "p.zip").namelist() if not name.endswith("/")}
    expected = {*CODE, "a b/[c]!.py", "again.py", ".gitignore"} - {"run.toml"}
    assert packed == set(made.sizes) == expected


def test_what_travels_is_said_by_number_size_and_the_three_largest(tmp_path):
    for number in range(1, 6):
        lay(tmp_path, [f"{number}.py"], number * 1_000_000)
    said = str(pack(str(tmp_path)))
    assert said.startswith(f"5 files of {tmp_path}, 15.0 MB; the largest: ")
    assert said.endswith(": 5.py (5.0 MB), 4.py (4.0 MB), 3.py (3.0 MB)")


def test_what_ray_would_not_take_is_refused_with_the_largest_file(tmp_path, monkeypatch):
    monkeypatch.setattr(parcel, "LIMIT", 3000)
    lay(tmp_path, ["big.bin"], 2000)
    pack(str(tmp_path)).check_size()
    lay(tmp_path, ["small.bin"], 1500)
    with pytest.raises(
        ValueError, match=r"Ray takes at most 3\.0 kB: the largest file is big\.bin"
    ) as caught:
        pack(str(tmp_path)).check_size()
    assert "--working-dir" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_repository_itself_can_be_sent():
    import rayseg

    root = str(parcel.Path(rayseg.__file__).resolve().parents[1])
    sizes = pack(root).sizes
    assert "rayseg/cli.py" in sizes
    assert "rayseg/report/page.html" in sizes
    assert ".git" in EXCLUDES
