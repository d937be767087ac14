#!/usr/bin/env bash
# Creates certificates for NATS servers with openssl: an authority, and a certificate per server, for clients and routes.
#   deploy/nats/certificates.sh FOLDER NAME[,NAME|ADDRESS…]…
#   deploy/nats/certificates.sh certificates nats-0,nats-0.example.com nats-1,nats-1.example.com nats-2,10.0.0.3
# For each server, called by its first name: FOLDER/NAME/tls.crt, tls.key and ca.crt, which go to /etc/nats/tls of that
# server. FOLDER/ca.crt goes to gateways and workers (NATS_CA). FOLDER/ca.key signs: keep it offline, and use it only for servers.
# Run again with the same folder, it renews the named certificates with the same authority. DAYS (90) is their validity.
set -Eeuo pipefail
folder=${1:?"which folder? certificates.sh FOLDER NAME[,NAME|ADDRESS…]…"}
shift
[ $# -gt 0 ] || { echo "name the servers: certificates.sh $folder nats-0 nats-1 nats-2" >&2 && exit 2; }
days=${DAYS:-90}
[[ $days =~ ^[1-9][0-9]*$ ]] || { echo "DAYS is a number of days, not $days" >&2 && exit 2; }
for names in "$@"; do
    [[ $names =~ ^[A-Za-z0-9*]([A-Za-z0-9.:*-]*)(,[A-Za-z0-9*:][A-Za-z0-9.:*-]*)*$ ]] ||
        { echo "$names is not a list of host names and addresses, separated by commas" >&2 && exit 2; }
done
umask 077
mkdir -p "$folder"
work=$(mktemp -d "$folder/.new.XXXXXX")
trap 'rm -rf "$work"' EXIT

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

if [ ! -e "$folder/ca.key" ]; then
    [ ! -e "$folder/ca.crt" ] || { echo "$folder has ca.crt and no ca.key: nothing can be signed there" >&2 && exit 1; }
    key "$work/ca.key"
    openssl req -x509 -new -key "$work/ca.key" -days 3650 -subj "/CN=NATS servers" \
        -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign -out "$work/ca.crt"
    mv "$work/ca.key" "$work/ca.crt" "$folder/"
    chmod 644 "$folder/ca.crt"
fi

for names in "$@"; do
    name=${names%%,*}
    subjects=
    for one in ${names//,/ }; do
        if [[ $one =~ ^[0-9.]+$ || $one == *:* ]]; then one=IP:$one; else one=DNS:$one; fi
        subjects+=${subjects:+,}$one
    done
    key "$work/tls.key"
    openssl req -new -key "$work/tls.key" -subj "/CN=$name" -out "$work/tls.csr"
    # A server is a client of the other servers.
    cat >"$work/extensions" <<EOF
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
subjectAltName=$subjects
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
EOF
    openssl x509 -req -in "$work/tls.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -days "$days" \
        -extfile "$work/extensions" -out "$work/tls.crt" 2>/dev/null
    openssl verify -CAfile "$folder/ca.crt" "$work/tls.crt" >/dev/null
    mkdir -p "$folder/$name"
    cp "$folder/ca.crt" "$folder/$name/ca.crt"
    # Replaces certificate and key together, as far as that is possible with two files.
    mv "$work/tls.key" "$work/tls.crt" "$folder/$name/"
    chmod 644 "$folder/$name"/*.crt
    echo "$folder/$name: ${subjects//DNS:/}, until $(openssl x509 -in "$folder/$name/tls.crt" -noout -enddate | cut -d= -f2)"
done
