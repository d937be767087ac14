# Runs "$@" and lives as long as it does. Stops it when standard input ends: its writer, the owner, is gone.
# Writes the program's process id on standard output.

# A terminal's signals are for the owner. And when an owner dies whose program is paused, the kernel hangs up
# (HUP) the whole group, as nobody is left to resume it.
trap '' HUP INT QUIT

exec 3<&0
"$@" </dev/null 3<&- &
program=$!
echo "$program"

{
    read -r _ <&3
    kill -TERM "$program"
    kill -CONT "$program" # a paused program does not see TERM
    for _ in 1 2 3 4 5; do
        sleep 1
        kill -0 "$program" || exit
    done
    kill -KILL "$program"
} >/dev/null 2>&1 &
guard=$!

wait "$program"
status=$?
kill -KILL "$guard" 2>/dev/null
wait "$guard" 2>/dev/null
exit "$status"
