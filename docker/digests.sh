#!/bin/sh
# Prints the digests of the images in compose.yaml as lines for docker/.env. Needs docker with buildx, and their registry.
set -eu
cd "$(dirname "$0")"
sed -n 's/^ *\(image\|PYTHON_IMAGE\): \(.*\)\${\([A-Z_]*_DIGEST\):-}$/\3 \2/p' compose.yaml | sort -u |
    while read -r variable image; do
        digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image" </dev/null)
        case $digest in
            sha256:*) echo "$variable=@$digest" ;;
            *) echo "No digest for $image: $digest" >&2; exit 1 ;;
        esac
    done
