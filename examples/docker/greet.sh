# Greets, in the image that docker_env names.
echo "$GREETING, $1" | tee greeting.txt
