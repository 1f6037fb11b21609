"""What masks show of tagged classes, pixel by pixel and image by image."""


def counted(images, index):
    """Images, lacking, pixels and covered of a class, over (labels, tags) of each image."""
    found = [0, 0, 0, 0]
    for labels, tags in images:
        if index not in tags:
            continue
        own = 0
        for row in labels.tolist():
            for pixel in row:
                found[2] += 1
                if pixel == index + 1:
                    own += 1
        found[0] += 1
        found[1] += 1 if own == 0 else 0
        found[3] += own
    return found
