/* SPDX-License-Identifier: GPL-2.0 */
/*
 * virtio-sst on PCI, as 1af4:107f. Modern virtio alone: the device is younger than virtio 1.0. Two
 * vectors: one for the configuration, one for the queue.
 */
#include "qemu/osdep.h"

#include "hw/qdev-properties.h"
#include "hw/virtio/virtio-pci.h"
#include "qapi/error.h"
#include "qemu/module.h"
#include "virtio-sst.h"

#define TYPE_VIRTIO_SST_PCI "virtio-sst-pci-base"
OBJECT_DECLARE_SIMPLE_TYPE(VirtIOSSTPCI, VIRTIO_SST_PCI)

struct VirtIOSSTPCI {
  VirtIOPCIProxy parent_obj;
  VirtIOSST vdev;
};

static Property virtio_sst_pci_properties[] = {
    DEFINE_PROP_BIT("ioeventfd", VirtIOPCIProxy, flags, VIRTIO_PCI_FLAG_USE_IOEVENTFD_BIT, true),
    DEFINE_PROP_UINT32("vectors", VirtIOPCIProxy, nvectors, 2),
    DEFINE_PROP_END_OF_LIST(),
};

static void virtio_sst_pci_realize(VirtIOPCIProxy* proxy, Error** errp) {
  virtio_pci_force_virtio_1(proxy);
  qdev_realize(DEVICE(&VIRTIO_SST_PCI(proxy)->vdev), BUS(&proxy->bus), errp);
}

static void virtio_sst_pci_class_init(ObjectClass* klass, void* data) {
  DeviceClass* dc = DEVICE_CLASS(klass);
  VirtioPCIClass* vpc = VIRTIO_PCI_CLASS(klass);
  PCIDeviceClass* pc = PCI_DEVICE_CLASS(klass);
  device_class_set_props(dc, virtio_sst_pci_properties);
  set_bit(DEVICE_CATEGORY_MISC, dc->categories);
  dc->desc = "simulated matrix accelerator";
  vpc->realize = virtio_sst_pci_realize;
  pc->vendor_id = PCI_VENDOR_ID_REDHAT_QUMRANET;
  pc->revision = VIRTIO_PCI_ABI_VERSION;
  pc->class_id = PCI_CLASS_OTHERS;
}

static void virtio_sst_pci_instance_init(Object* obj) {
  VirtIOSSTPCI* sst = VIRTIO_SST_PCI(obj);
  virtio_instance_init_common(obj, &sst->vdev, sizeof(sst->vdev), TYPE_VIRTIO_SST);
}

static const VirtioPCIDeviceTypeInfo virtio_sst_pci_info = {
    .base_name = TYPE_VIRTIO_SST_PCI,
    .generic_name = "virtio-sst-pci",
    .instance_size = sizeof(VirtIOSSTPCI),
    .instance_init = virtio_sst_pci_instance_init,
    .class_init = virtio_sst_pci_class_init,
};

static void virtio_sst_pci_register(void) { virtio_pci_types_register(&virtio_sst_pci_info); }

type_init(virtio_sst_pci_register)
