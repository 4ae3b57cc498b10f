#!/usr/bin/env bash
# Build an image with Docker, or with buildah where no Docker answers:
#   docker/build.sh cpu|gpu|jetson [options of the builder …]
# Where no registry can be reached, the CPU image can stand on a Debian made here (root, debootstrap):
#   BASE=debian docker/build.sh cpu
# TAG names the image (edpct:cpu and so on), BASE another base image.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:?usage: docker/build.sh cpu|gpu|jetson [options of the builder]}
shift
file=docker/$target.Dockerfile
[ -f "$file" ] || { echo "There is no $file." >&2; exit 2; }
tag=${TAG:-edpct:$target}
base=${BASE:-}

if docker info >/dev/null 2>&1; then
  build=(docker build)
elif command -v buildah >/dev/null; then
  # The format of Docker: that of OCI has no HEALTHCHECK. Layers are kept, so that a second build is quick.
  build=(buildah bud --format docker --layers --isolation "${BUILDAH_ISOLATION:-chroot}")
else
  echo "Neither a Docker daemon nor buildah is here." >&2
  exit 2
fi

# A Debian with Python 3.11, as small as debootstrap makes it, less the lists of packages.
debian() {
  local name=edpct-base:bookworm root
  if ! buildah inspect --type image "$name" >/dev/null 2>&1; then
    root=$(mktemp -d)
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root/debian" >&2
    rm -rf "$root"/debian/var/{cache/apt,lib/apt/lists,log}/*
    from_folder "$root/debian" "$name"
    rm -rf "$root"
  fi
  echo "localhost/$name"
}

from_folder() {
  local container
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$1" / >&2
  buildah commit --quiet --format docker "$container" "$2" >&2
  buildah rm "$container" >&2
}

[ "$base" != debian ] || base=$(debian)
[ -z "$base" ] || set -- --build-arg "BASE=$base" "$@"
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' edpct/__init__.py)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
exec "${build[@]}" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --file "$file" --tag "$tag" "$@" .
