#!/usr/bin/env bash
# Creates the roles of roles.conf as JWT accounts with nsc: an operator, the accounts ORDERS and SUBSCRIBERS, a user per role,
# and its credentials in a file. Reads the subjects from roles.conf, so that both have the same permissions.
#   deploy/nats/accounts.sh FOLDER [OPERATOR]
# Writes FOLDER/ROLE.creds and FOLDER/accounts.conf, which replaces `include roles.conf`. nsc keeps the keys in its own folder;
# with them any user can be created.
set -Eeuo pipefail
cd "$(dirname "$0")"
folder=${1:?where to}
operator=${2:-orders}
umask 077
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

# A list of subjects in roles.conf, separated by commas: of a role, publish or subscribe, allow or deny.
list() {
    awk -v role="$1_may: {" -v act="$2: {" -v word="$3: [" '
        $0 == role { in_role = 1 }
        in_role && $0 == "}" { exit }
        in_role && $1 " " $2 == act { in_act = 1 }
        in_act && /^  }/ { in_act = 0 }
        in_act && $1 " " $2 == word { in_list = 1; next }
        in_list && /]/ { in_list = 0 }
        in_list && /^ *"/ { sub(/^ *"/, ""); sub(/"$/, ""); printf "%s%s", comma, $0; comma = "," }
    ' roles.conf
}

user() {
    local account=$1 role=$2 allow deny
    shift 2
    allow=$(list "$role" publish allow) deny=$(list "$role" publish deny)
    nsc add user --account "$account" --name "$role" --allow-pub "$allow" ${deny:+--deny-pub "$deny"} \
        --allow-sub "$(list "$role" subscribe allow)" "$@"
    nsc generate creds --account "$account" --name "$role" --output-file "$folder/$role.creds"
}

nsc add operator --name "$operator" --sys
nsc add account --name ORDERS
nsc edit account --name ORDERS --js-disk-storage -1 --js-streams -1 --js-consumer -1
nsc add account --name SUBSCRIBERS

for subject in order_created order_status_updated; do
    nsc add export --account ORDERS --name "$subject" --subject "$subject"
    nsc add import --account SUBSCRIBERS --src-account ORDERS --name "$subject" --remote-subject "$subject"
done
for verb in INFO MSG.NEXT; do
    of="CONSUMER.$verb.ORDERS.subscriber"
    type=Singleton
    [ "$verb" = INFO ] || type=Stream
    nsc add export --account ORDERS --name "$of" --subject "\$JS.API.$of" --service --response-type "$type"
    nsc add import --account SUBSCRIBERS --src-account ORDERS --name "$of" --service \
        --remote-subject "\$JS.API.$of" --local-subject "orders.API.$of"
done
ack='$JS.ACK.ORDERS.subscriber.>'
nsc add export --account ORDERS --name ack --subject "$ack" --service
nsc add import --account SUBSCRIBERS --src-account ORDERS --name ack --service --remote-subject "$ack" --local-subject "$ack"

for role in provisioner operator catalog_publisher breakglass; do
    user ORDERS "$role"
done
# `allow_responses` of roles.conf.
user ORDERS gateway --allow-pub-response=1 --response-ttl 2s
user ORDERS worker --allow-pub-response=1 --response-ttl 3m
user SUBSCRIBERS subscriber
# The account SYS was created with the operator.
for role in system breakglass_system; do
    user SYS "$role"
done

nsc generate config --mem-resolver --sys-account SYS --config-file "$folder/accounts.conf"
