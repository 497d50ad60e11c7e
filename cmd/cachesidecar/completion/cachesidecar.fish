# Completes the command line of cachesidecar in fish. Load it with:
#     cachesidecar completion fish | source
# or write it to ~/.config/fish/completions/cachesidecar.fish.
function __cachesidecar_complete
    set -l words (commandline -opc)
    set -l program (string replace -r '^~(?=/|$)' -- $HOME $words[1])
    set -e words[1]
    for line in ($program complete fish $words (commandline -ct) 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c cachesidecar -f -a '(__cachesidecar_complete)'
